"""Reads the inputs of a run before anything is started: data, chat template, lengths. Finds every mistake in them."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import AutoConfig

from corewarding.dataflow.errors import UserError
from corewarding.dataflow.ids import View
from corewarding.launch.config.tree import TrainConfig
from corewarding.questions.gold import GoldAnswers
from corewarding.questions.load import load_heldout, load_training
from corewarding.questions.prompts import PreparedQuestions, prepare
from corewarding.questions.template import PromptTemplate
from corewarding.rewards.rules.table import REWARD_RULES, RewardRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The inputs of a run."""

    rule: RewardRule
    template: PromptTemplate
    prepared: PreparedQuestions
    gold: GoldAnswers
    heldout: PreparedQuestions | None
    heldout_gold: GoldAnswers
    max_model_len: int  # prompt + completion, of training and evaluation


def read_inputs(config: TrainConfig) -> Inputs:
    """Reads data, template and lengths. UserError, with key, value and remedy, if something does not fit."""
    rule = REWARD_RULES[config.rule]
    model_path = config.model_folder
    template = PromptTemplate.from_folder(model_path, system_prompt=config.data.system_prompt)
    views: tuple[View, ...] = tuple(dict.fromkeys(view for view, _ in rule.groups))
    longest = model_length(model_path)
    limits = {
        "max_model_len": min(config.engine.max_model_len or longest, longest),
        "max_new_tokens": config.rollout.max_new_tokens,
    }
    training = load_training(config.data, seed=config.train.seed, needs_rephrased=rule.needs_rephrased)
    prepared = prepare(training, template, views=views, max_prompt_tokens=config.data.max_prompt_tokens, **limits)
    heldout, heldout_gold = None, GoldAnswers.without()
    if config.data.kind == "arithmetic" or config.data.heldout is not None:
        questions = load_heldout(config.data, seed=config.train.seed)
        heldout = prepare(
            questions, template, views=("original",), max_prompt_tokens=config.data.max_prompt_tokens, **limits
        )
        heldout_gold = questions.gold
    longest_prompt = max(prepared.longest, heldout.longest if heldout else 0)
    return Inputs(
        rule=rule,
        template=template,
        prepared=prepared,
        gold=training.gold,
        heldout=heldout,
        heldout_gold=heldout_gold,
        max_model_len=config.engine.max_model_len or longest_prompt + config.rollout.max_new_tokens,
    )


def sizes(config: TrainConfig, inputs: Inputs) -> dict[str, str]:
    """The sizes that follow from configuration and data, for the table printed at the start."""
    prepared, longest = inputs.prepared, config.data.max_prompt_tokens
    return {
        "questions": f"{len(prepared.questions)} ({prepared.num_dropped} dropped: longer than {longest} tokens)",
        **config.derived(),
        "longest prompt + completion": f"{inputs.max_model_len} tokens",
    }


def model_length(model_path: str) -> int:
    """The longest sequence of the model, in tokens. UserError for a folder without a model."""
    try:
        config = AutoConfig.from_pretrained(model_path)
    except (OSError, ValueError) as error:
        raise UserError(f"model.path {model_path}: no model configuration can be read there ({error})") from error
    return int(config.max_position_embeddings)
