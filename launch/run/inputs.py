"""Reads the inputs of a run before anything is started: model, chat template, data, lengths. Finds every mistake in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corewarding.dataflow.errors import UserError
from corewarding.dataflow.ids import View
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.run.journal.start import journal_words
from corewarding.launch.run.preflight.model import check_model, find_model, sources
from corewarding.questions.gold import GoldAnswers
from corewarding.questions.load import QuestionSet, load_heldout, load_training
from corewarding.questions.prompts import PreparedQuestions, prepare
from corewarding.questions.template import PromptTemplate
from corewarding.rewards.rules.contract import RewardRule
from corewarding.weights.hub import ModelFolder
from corewarding.weights.model_config import model_config
from corewarding.weights.model_files import StoredModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The inputs of a run."""

    rule: RewardRule
    folder: ModelFolder
    model: StoredModel  # what the folder holds
    template: PromptTemplate
    prepared: PreparedQuestions
    gold: GoldAnswers
    known: tuple[str, ...]  # questions whose answers labels.budget buys
    heldout: PreparedQuestions | None
    heldout_gold: GoldAnswers
    max_model_len: int  # prompt + completion, of training and evaluation


def read_inputs(config: TrainConfig, *, revision: str | None = None) -> Inputs:
    """Finds the model, downloading it if it is missing; reads data, template and lengths.

    revision: of a hub id, if config names none. UserError, with key, value and remedy, if something does not fit.
    """
    rule = config.reward_rule
    folder = find_model(config, revision=revision)
    template = PromptTemplate.from_folder(folder.path, system_prompt=config.data.system_prompt)
    model = check_model(config, folder.path, template)
    views: tuple[View, ...] = tuple(dict.fromkeys(view for view, _ in rule.groups))
    longest = model_length(str(folder.path))
    limits = {
        "max_model_len": min(config.engine.max_model_len or longest, longest),
        "max_new_tokens": config.rollout.max_new_tokens,
    }
    _check_scripts(config)
    training = load_training(config.asked_data, seed=config.train.seed, needs_rephrased=rule.needs_rephrased)
    prepared = prepare(training, template, views=views, max_prompt_tokens=config.data.max_prompt_tokens, **limits)
    if "gold" in rule.needs:
        _require_answers(rule, training)
    heldout, heldout_gold = None, GoldAnswers.without()
    if config.data.kind == "arithmetic" or config.data.heldout is not None:
        questions = load_heldout(config.asked_data, seed=config.train.seed)
        heldout = prepare(
            questions, template, views=("original",), max_prompt_tokens=config.data.max_prompt_tokens, **limits
        )
        heldout_gold = questions.gold
    longest_prompt = max(prepared.longest, heldout.longest if heldout else 0)
    return Inputs(
        rule=rule,
        folder=folder,
        model=model,
        template=template,
        prepared=prepared,
        gold=training.gold,
        known=_bought(config, prepared, training.gold),
        heldout=heldout,
        heldout_gold=heldout_gold,
        max_model_len=config.engine.max_model_len or longest_prompt + config.rollout.max_new_tokens,
    )


def located(config: TrainConfig, folder: ModelFolder) -> TrainConfig:
    """The configuration for the processes of a run: a hub id is replaced by the folder, so that none of them asks the hub."""
    if folder.hub_id is None:
        return config
    model = config.model.model_copy(update={"path": str(folder.path), "revision": None})
    return config.model_copy(update={"model": model})


def _require_answers(rule: RewardRule, training: QuestionSet) -> None:
    """UserError if questions have no answer: a rule that reads answers would train on nothing."""
    missing = [question.id for question in training.questions if question.id not in training.gold]
    if missing:
        raise UserError(
            f"rule {rule.name} needs the answer of every question, and {len(missing)} of {len(training.questions)} questions of "
            f"{training.source} have none (first: {missing[0]}): name their column by data.columns, leave the questions out, "
            "or choose a rule that labels itself, for example majority_vote"
        )


def _check_scripts(config: TrainConfig) -> None:
    for script in {config.engine_of(source).script for source in sources(config)} - {None}:
        if not Path(str(script)).is_file():
            raise UserError(
                f"engine.script {script}: there is no such file; it holds the recorded completions, as JSONL"
            )


def _bought(config: TrainConfig, prepared: PreparedQuestions, gold: GoldAnswers) -> tuple[str, ...]:
    """The questions within labels.budget. UserError if fewer have an answer."""
    found = gold.chosen((question.id for question in prepared.questions), config.labels.budget, seed=config.train.seed)
    if len(found) < config.labels.budget:
        raise UserError(
            f"labels.budget is {config.labels.budget}, but only {len(found)} training questions have an answer; lower it"
        )
    return found


def sizes(config: TrainConfig, inputs: Inputs) -> dict[str, str]:
    """The sizes that follow from configuration and data, for the table printed at the start."""
    prepared, longest = inputs.prepared, config.data.max_prompt_tokens
    return {
        "questions": f"{len(prepared.questions)} ({prepared.num_dropped} dropped: longer than {longest} tokens)",
        **config.derived(),
        "held-out questions": _heldout_words(config, inputs),
        "longest prompt + completion": f"{inputs.max_model_len} tokens",
        "journal": journal_words(config, longest_prompt=prepared.longest),
    }


def _heldout_words(config: TrainConfig, inputs: Inputs) -> str:
    if inputs.heldout is not None:
        num, asked = len(inputs.heldout.questions), config.eval.num_questions
        return f"{num}" if asked >= num else f"{num} ({asked} asked before and after training)"
    note = "none: data.heldout is not set, so nothing is evaluated"
    return note + (
        f" and eval.every_updates {config.eval.every_updates} has no effect" if config.eval.every_updates else ""
    )


def model_length(model_path: str) -> int:
    """The longest sequence of the model, in tokens. UserError for a folder without a model."""
    return int(model_config(model_path).max_position_embeddings)
