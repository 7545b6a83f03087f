"""Checks between keys: what no single field can know."""

from __future__ import annotations

import difflib
import re

from pydantic import ValidationError

from corewarding.actors.engines import ENGINES, kinds_with
from corewarding.actors.settings import EngineSettings
from corewarding.launch.config.tree import TrainConfig
from corewarding.rewards.rules.table import REWARD_RULES


def problems(config: TrainConfig) -> list[str]:
    """What no single field can know."""
    found: list[str] = []
    if config.rule not in REWARD_RULES:
        return [REWARD_RULES.unknown(config.rule)]
    if reason := REWARD_RULES.unreachable(config.rule):
        return [reason]
    if config.rollout.group_size < 2:
        found.append(
            f"rollout.group_size must be at least 2, got {config.rollout.group_size}: a group of one has no mean to be "
            "compared with, so every advantage is zero"
        )
    if config.staleness.on_exceed == "wait" and config.staleness.depth > config.staleness.max:
        found.append(
            f"staleness.pipeline_depth must be at most staleness.max = {config.staleness.max}, got {config.staleness.depth}: "
            "samples drawn further ahead would be too old to be trained on, and staleness.on_exceed is wait"
        )
    found += _engine_problems(config)
    if config.data.kind == "files" and config.data.train is None:
        found.append("data.kind files needs data.train: a Parquet or JSONL file, a folder or a hub id")
    for key in ("token_band", "sequence_band"):
        band = getattr(config.correction, key)
        if band is not None and not 0 < band[0] < band[1]:
            found.append(f"correction.{key} must be two rising positive numbers, got {list(band)}")
    return found


def _engine_problems(config: TrainConfig) -> list[str]:
    problems = []
    for key in config.teacher_engine:
        if key not in EngineSettings.model_fields:
            near = difflib.get_close_matches(key, EngineSettings.model_fields, n=1)
            hint = f"did you mean {near[0]}?" if near else "it takes the keys of engine"
            return [f"teacher_engine.{key} does not exist; {hint}"]
    try:
        teacher = config.engine_of("teacher")
    except ValidationError as error:
        return [explain(error, inside="teacher_engine")]
    for name, engine in (("engine", config.engine), ("teacher_engine", teacher)):
        if engine.kind not in ENGINES:
            return [f"{name}.kind: {ENGINES.unknown(engine.kind)}"]
        if reason := ENGINES.unreachable(engine.kind):
            return [reason]
        kind = ENGINES[engine.kind]
        if kind.needs_script and engine.script is None:
            problems.append(f"{name}.kind {engine.kind} needs engine.script, a JSONL file of recorded completions")
        if engine.deterministic and (not kind.deterministic or engine.threads != 1):
            problems.append(
                f"{name}.deterministic needs engine.kind {kinds_with('deterministic')} and engine.threads 1, "
                f"got {engine.kind} and {engine.threads}"
            )
        if engine.arguments and not kind.takes_arguments:
            problems.append(f"{name}.arguments needs {name}.kind {kinds_with('takes_arguments')}, got {engine.kind}")
        if engine.tensor_parallel > 1 and not kind.tensor_parallel:
            problems.append(
                f"{name}.tensor_parallel {engine.tensor_parallel} needs {name}.kind {kinds_with('tensor_parallel')}, "
                f"got {engine.kind}"
            )
        if 0 < config.rollout.gpus_per_actor < engine.tensor_parallel > 1:
            problems.append(
                f"{name}.tensor_parallel {engine.tensor_parallel} needs as many rollout.gpus_per_actor, "
                f"got {config.rollout.gpus_per_actor:g}"
            )
        share = config.rollout.gpus_per_actor
        if 0 < share < 1 and kind.takes_memory_fraction and engine.memory_fraction > share:
            problems.append(
                f"{name}.memory_fraction {engine.memory_fraction:g} is more than an actor's share of a GPU, "
                f"rollout.gpus_per_actor {share:g}"
            )
        if engine.url is not None and not kind.takes_url:
            problems.append(f"{name}.url needs {name}.kind {kinds_with('takes_url')}, got {engine.kind}")
        if engine.url is not None and not re.fullmatch(r"https?://[^/:]+(:\d+)?/?", engine.url):
            problems.append(f"{name}.url must be like http://node3:30000, got {engine.url}")
    asked = {"rollout.policy_actors": (config.engine.url, config.rollout.policy_actors)}
    if REWARD_RULES[config.rule].needs_teacher:
        asked["rollout.teacher_actors"] = (teacher.url, config.rollout.teacher_actors)
    for key, (url, num) in asked.items():
        if url is not None and num > 1:
            problems.append(
                f"engine.url {url} is one server, which holds the weights of one actor; set {key} 1, got {num}"
            )
    if len(asked) > 1 and config.engine.url is not None and teacher.url == config.engine.url:
        problems.append(
            f"engine.url {teacher.url} cannot serve policy and teacher, whose weights differ; set teacher_engine.url, or "
            "teacher_engine: {url: null} for an engine of its own"
        )
    if teacher.dtype != config.engine.dtype:
        problems.append(
            f"teacher_engine.dtype must be engine.dtype, {config.engine.dtype}: both take one stream of weights"
        )
    return problems


def explain(error: ValidationError, *, inside: str = "") -> str:
    """Pydantic's findings, one a line, as `key: rule, got value`. inside: the section the model is of."""
    lines = []
    for found in error.errors(include_url=False):
        key = ".".join(str(part) for part in (inside, *found["loc"]) if part != "")
        message = found["msg"].removeprefix("Value error, ")
        lines.append(f"{key}: {message}, got {found['input']!r}" if key else message)
    return "\n".join(lines)


def section_of(settings: str) -> str:
    """The key under which the settings class of that name stands; empty for the configuration itself."""
    return next((key for key, field in TrainConfig.model_fields.items() if field.annotation.__name__ == settings), "")  # type: ignore[union-attr]
