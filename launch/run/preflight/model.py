"""Checks of the model: whether learner and engines compute it right, its files, its vocabulary. Nothing is loaded."""

from __future__ import annotations

from pathlib import Path

from corewarding.actors.engines import ENGINES
from corewarding.dataflow.errors import UserError
from corewarding.dataflow.ids import Source
from corewarding.launch.config.tree import TrainConfig
from corewarding.learner.lora.adapter import check_targets
from corewarding.questions.template import PromptTemplate
from corewarding.weights.architectures import check_architecture
from corewarding.weights.hub import ModelFolder, model_folder
from corewarding.weights.model_check import check_weights
from corewarding.weights.model_config import model_config
from corewarding.weights.model_files import StoredModel


class VocabularyError(UserError):
    """The tokenizer knows tokens that the model has no embedding for."""


def find_model(config: TrainConfig, *, revision: str | None) -> ModelFolder:
    """The folder of the model, downloaded if it is missing. revision: of a hub id, if config names none.

    UserError if there is none, or learner or engines would compute its architecture wrong: that is seen before weights are downloaded.
    """
    found = model_folder(
        config.model_folder,
        config.model.revision or revision,
        check=lambda folder: _check_served(config, folder),
        say=lambda text: print(text, flush=True),
    )
    _check_served(config, found.path)
    return found


def check_model(config: TrainConfig, folder: Path, template: PromptTemplate) -> StoredModel:
    """What the folder holds. UserError for files that are damaged or do not fit each other, for a tokenizer of another model, and for
    adapters that do not fit the model."""
    stored = check_weights(folder)
    if config.learner.lora.is_on:
        check_targets(folder, config.learner.lora, name=config.model_folder)
    _check_vocabulary(template, int(model_config(folder).get_text_config().vocab_size), name=config.model_folder)
    return stored


def _check_served(config: TrainConfig, folder: Path) -> None:
    """UserError for an architecture that learner or engines would compute wrong; reads config.json alone."""
    name = config.model_folder
    model = model_config(folder)
    check_architecture(model, folder=name, longest=config.longest_sequence, allow_unlisted=config.model.allow_unlisted)
    for source in sources(config):
        ENGINES[config.engine_of(source).kind].check_model(model, folder=name)


def sources(config: TrainConfig) -> tuple[Source, ...]:
    """The sources that have actors."""
    return ("policy", "teacher") if config.reward_rule.needs_teacher else ("policy",)


def _check_vocabulary(template: PromptTemplate, num_rows: int, *, name: str) -> None:
    absent = template.unembedded(num_rows)
    if absent:
        first = min(absent, key=lambda text: absent[text])
        raise VocabularyError(
            f"model.path {name}: its tokenizer has {len(absent)} tokens, the first is {first!r} with id {absent[first]}, for which "
            f"the embedding has no row: vocab_size in config.json is {num_rows}; take tokenizer and weights from the same model, or "
            "add rows with `resize_token_embeddings` and save the model again"
        )
