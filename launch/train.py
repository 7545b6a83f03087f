"""One training run from a configuration: reads the data, places the actors, runs the controller, leaves a run directory.

`run_training` is what `corewarding train` and `corewarding resume` call. Everything that can be wrong with the input is
found before an actor is started.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from actors.group import RolloutGroup
from actors.rollout_actor import RolloutPlan
from dataflow.types import Channel, Source, Version, View
from evals.heldout import EvalResult, score_completions
from evals.tasks import evaluation_tasks
from launch import placement
from launch.config import TrainConfig
from launch.controller import Controller, Parts
from launch.publisher import Publisher
from launch.run_dir import RunDir
from launch.summary import build_summary
from launch.watch import Watch
from learner.admission import AdmissionLimits
from learner.buffer import BufferPlan, ReplayBuffer
from learner.checkpoint import Checkpoint, CheckpointStore
from learner.group import LearnerGroup
from questions.gold import GoldAnswers
from questions.load import load_heldout, load_training
from questions.order import QuestionCursor
from questions.prompts import PreparedQuestions, prepare
from questions.template import PromptTemplate
from rewards.rules import REWARD_RULES, RewardRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a run reads before anything is started."""

    rule: RewardRule
    template: PromptTemplate
    prepared: PreparedQuestions
    gold: GoldAnswers
    heldout: PreparedQuestions | None
    heldout_gold: GoldAnswers
    max_model_len: int  # prompt + completion, of training and evaluation


def read_inputs(config: TrainConfig) -> Inputs:
    """Data, template and lengths. Raises the user's error, with key, value and remedy, for whatever does not fit."""
    rule = REWARD_RULES[config.rule]
    model_path = config.model.folder
    template = PromptTemplate.from_folder(model_path, system_prompt=config.data.system_prompt)
    views: tuple[View, ...] = tuple(dict.fromkeys(view for view, _ in rule.groups))
    longest = model_length(model_path)
    limits = {"max_model_len": min(config.engine.max_model_len or longest, longest), "max_new_tokens": config.rollout.max_new_tokens}
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


def admission_limits(config: TrainConfig) -> AdmissionLimits:
    """The pipeline's bounds; CapacityError where they would deadlock."""
    teacher, votes = config.teacher, REWARD_RULES[config.rule].needs_teacher
    return AdmissionLimits(
        questions_per_update=config.train.questions_per_update,
        total_updates=config.train.updates,
        staleness_max=config.staleness.max,
        depth=config.staleness.depth,
        publish_every=config.publish.every_updates,
        label_max=config.label.max_staleness if votes and not teacher.freeze else None,
        teacher_lag=teacher.update_every + teacher.publish_every - 2,
    )
