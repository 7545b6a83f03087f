"""Checks between keys, which no single field can make. Each is a function in a table and yields its messages.

A message names the key, the rule and the value that was given.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from corewarding.actors.engines import ENGINES, EngineKind, kinds_with
from corewarding.actors.settings import EngineSettings, RolloutSettings
from corewarding.dataflow.errors import UserError
from corewarding.dataflow.registry import Registry
from corewarding.launch.config.schedules import problems_of_keys, stages
from corewarding.launch.config.secrets import MASK, is_secret
from corewarding.launch.config.tree import TrainConfig
from corewarding.learner.objective.corrections import CORRECTION_MODES
from corewarding.questions.readers import READERS
from corewarding.rewards.rules.table import REWARD_RULES

NAMES: dict[str, Registry[Any]] = {
    "rule": REWARD_RULES,
    "engine.kind": ENGINES,
    "data.reader": READERS,
    "correction.mode": CORRECTION_MODES,
}
"""Keys whose values are names of a table, to which plug-ins add."""


def known_names() -> str:
    """The names that each key of NAMES takes now, those of loaded plug-ins included; `--help` ends with it."""
    return "\n".join(f"  {key:<16} {', '.join(table)}" for key, table in NAMES.items())


def problems(config: TrainConfig) -> list[str]:
    """All contradictions in the configuration. A name that does not exist hides the others."""
    unknown = list(_unknown_names(config)) or list(_label_source(config)) or list(problems_of_keys(config))
    if unknown:
        return unknown
    later = [
        f"{message} (after {start} updates, by schedules)" for start, one in stages(config) for message in problems(one)
    ]
    return [message for check in CHECKS for message in check(config)] + later


def _unknown_names(config: TrainConfig) -> Iterator[str]:
    readers = [name for name in (config.data.reader, config.data.heldout_reader) if name not in (None, "auto")]
    chosen = [("rule", config.rule), ("correction.mode", config.correction.mode)]
    chosen += [("data.reader", name) for name in readers if name is not None]
    for key, name in chosen:
        table = NAMES[key]
        if name not in table:
            yield table.unknown(name)
        elif reason := table.unreachable(name):
            yield reason
    for key in config.teacher_engine.keys() - EngineSettings.model_fields.keys():
        near = difflib.get_close_matches(key, EngineSettings.model_fields, n=1)
        hint = f"did you mean {near[0]}?" if near else "it takes the keys of engine"
        yield f"teacher_engine.{key} does not exist; {hint}"
        return
    try:
        engines = {"engine": config.engine, "teacher_engine": config.engine_of("teacher")}
    except ValidationError as error:
        yield explain(error, inside="teacher_engine")
        return
    for name, engine in engines.items():
        if engine.kind not in ENGINES:
            yield f"{name}.kind: {ENGINES.unknown(engine.kind)}"
        elif reason := ENGINES.unreachable(engine.kind):
            yield reason


def _group_size(config: TrainConfig) -> Iterator[str]:
    if config.rollout.group_size < 2:
        yield (
            f"rollout.group_size must be at least 2, got {config.rollout.group_size}: a group of one has no mean to be "
            "compared with, so every advantage is zero"
        )


def _teacher_actors(config: TrainConfig) -> Iterator[str]:
    if config.reward_rule.needs_teacher and config.rollout.teacher_actors < 1:
        yield f"rollout.teacher_actors must be at least 1, got 0: rule {config.rule} takes its labels from the teacher's completions"


def _voters(config: TrainConfig) -> Iterator[str]:
    size = config.rollout.vote_size or config.rollout.group_size
    if config.vote.min_voters > size:
        yield (
            f"vote.min_voters must be at most rollout.group_size = {size}, got {config.vote.min_voters}: "
            "no vote would ever have enough voters"
        )


def _resources(config: TrainConfig) -> Iterator[str]:
    for section, gpus in (("learner", "gpus_per_rank"), ("rollout", "gpus_per_actor")):
        settings = getattr(config, section)
        share = getattr(settings, gpus)
        if share > 1 and share != int(share):
            yield f"{section}.{gpus} must be a share of one GPU or a whole number of GPUs, got {share:g}"
        if own := sorted(settings.resources.keys() & {"CPU", "GPU", "memory", "object_store_memory"}):
            yield (
                f"{section}.resources must name resources of the cluster's own, got {own[0]}: "
                f"{section}.{gpus} and {section}.{gpus.replace('gpus', 'cpus')} say how many GPUs and CPUs"
            )


def _vote_size(config: TrainConfig) -> Iterator[str]:
    size, trained = config.rollout.vote_size, config.rollout.group_size
    if size is not None and size < trained:
        yield f"rollout.vote_size must be at least rollout.group_size = {trained}, got {size}: trained completions vote, too"
    if size is not None and not config.reward_rule.voters:
        yield f"rollout.vote_size {size}: rule {config.rule} elects no label; remove rollout.vote_size"


def _embedding(config: TrainConfig) -> Iterator[str]:
    options = config.rule_options
    if options.evol_similarity == "embedding" and options.evol_embedding_model is None:
        yield "rule_options.evol_similarity embedding needs rule_options.evol_embedding_model, a model folder or hub id"


def _label_source(config: TrainConfig) -> Iterator[str]:
    try:
        REWARD_RULES[config.rule].labelled(config.label.source)
    except UserError as error:
        yield f"{error}; remove label.from"


def _pipeline_depth(config: TrainConfig) -> Iterator[str]:
    if config.staleness.on_exceed == "wait" and config.staleness.depth > config.staleness.max:
        yield (
            f"staleness.pipeline_depth must be at most staleness.max = {config.staleness.max}, got {config.staleness.depth}: "
            "samples drawn further ahead would be too old to be trained on, and staleness.on_exceed is wait"
        )


def _data_files(config: TrainConfig) -> Iterator[str]:
    if config.data.kind == "files" and config.data.train is None:
        yield "data.kind files needs data.train: a Parquet or JSONL file, a folder or a hub id"
    given = [key for key in ("train", "rephrased", "heldout") if getattr(config.data, key) is not None]
    if config.data.kind == "arithmetic" and given:
        yield (
            f"data.{given[0]} {getattr(config.data, given[0])} is not read, because data.kind is arithmetic: set data.kind files, "
            f"or data.{given[0]} null"
        )


def _bands(config: TrainConfig) -> Iterator[str]:
    for key in ("token_band", "sequence_band"):
        band = getattr(config.correction, key)
        if band is not None and not 0 < band[0] < band[1]:
            yield f"correction.{key} must be two rising positive numbers, got {list(band)}"


@dataclass(frozen=True, slots=True)
class _Engine:
    """One engine section, with the row of its kind."""

    name: str  # its key
    settings: EngineSettings
    kind: EngineKind
    rollout: RolloutSettings


def _engines(config: TrainConfig) -> Iterator[str]:
    for name, settings in (("engine", config.engine), ("teacher_engine", config.engine_of("teacher"))):
        engine = _Engine(name, settings, ENGINES[settings.kind], config.rollout)
        for check in ENGINE_CHECKS:
            yield from check(engine)


def _capabilities(engine: _Engine) -> Iterator[str]:
    """Keys that only some kinds of engine have."""
    name, its, kind = engine.name, engine.settings, engine.kind
    if kind.needs_script and its.script is None:
        yield f"{name}.kind {its.kind} needs engine.script, a JSONL file of recorded completions"
    if its.deterministic and (not kind.deterministic or its.threads != 1):
        yield (
            f"{name}.deterministic needs engine.kind {kinds_with('deterministic')} and engine.threads 1, "
            f"got {its.kind} and {its.threads}"
        )
    for key, used, capability in (
        ("arguments", bool(its.arguments), "takes_arguments"),
        (f"tensor_parallel {its.tensor_parallel}", its.tensor_parallel > 1, "tensor_parallel"),
        ("url", its.url is not None, "takes_url"),
        ("request_seeds false", its.request_seeds is False, "own_stream"),
    ):
        if used and not getattr(kind, capability):
            yield f"{name}.{key} needs {name}.kind {kinds_with(capability)}, got {its.kind}"


def _gpu_share(engine: _Engine) -> Iterator[str]:
    its, share = engine.settings, engine.rollout.gpus_per_actor
    if 0 < share < its.tensor_parallel > 1:
        yield (
            f"{engine.name}.tensor_parallel {its.tensor_parallel} needs as many rollout.gpus_per_actor, got {share:g}"
        )
    if 0 < share < 1 and engine.kind.takes_memory_fraction and its.memory_fraction > share:
        yield (
            f"{engine.name}.memory_fraction {its.memory_fraction:g} is more than an actor's share of a GPU, "
            f"rollout.gpus_per_actor {share:g}"
        )


def _url_form(engine: _Engine) -> Iterator[str]:
    url = engine.settings.url
    if url is not None and not re.fullmatch(r"https?://[^/:]+(:\d+)?/?", url):
        yield f"{engine.name}.url must be like http://node3:30000, got {url}"


def _one_actor_per_server(config: TrainConfig) -> Iterator[str]:
    teacher = config.engine_of("teacher")
    asked = {"rollout.policy_actors": (config.engine.url, config.rollout.policy_actors)}
    if config.reward_rule.needs_teacher:
        asked["rollout.teacher_actors"] = (teacher.url, config.rollout.teacher_actors)
    for key, (url, num) in asked.items():
        if url is not None and num > 1:
            yield f"engine.url {url} is one server, which holds the weights of one actor; set {key} 1, got {num}"
    if len(asked) > 1 and config.engine.url is not None and teacher.url == config.engine.url:
        yield (
            f"engine.url {teacher.url} cannot serve policy and teacher, whose weights differ; set teacher_engine.url, or "
            "teacher_engine: {url: null} for an engine of its own"
        )


def _nccl(config: TrainConfig) -> Iterator[str]:
    rank, actor = config.learner.gpus_per_rank, config.rollout.gpus_per_actor
    if config.publish.backend == "nccl" and (rank < 1 or actor < 1):
        yield (
            f"publish.backend nccl needs a whole GPU for every process, got learner.gpus_per_rank {rank:g} and "
            f"rollout.gpus_per_actor {actor:g}; set publish.backend auto, which chooses what fits"
        )


def _one_dtype(config: TrainConfig) -> Iterator[str]:
    if config.engine_of("teacher").dtype != config.engine.dtype:
        yield f"teacher_engine.dtype must be engine.dtype, {config.engine.dtype}: both take one stream of weights"


def _best(config: TrainConfig) -> Iterator[str]:
    evaluated, saved = config.eval.every_updates, config.checkpoint.every_updates
    if config.checkpoint.keep_best and not (evaluated and saved and evaluated % saved == 0):
        yield (
            f"checkpoint.keep_best {config.checkpoint.keep_best} needs an evaluation of saved updates: set eval.every_updates "
            f"({evaluated}) to a multiple of checkpoint.every_updates ({saved}), both above 0"
        )


CHECKS: tuple[Callable[[TrainConfig], Iterator[str]], ...] = (
    _group_size,
    _teacher_actors,
    _voters,
    _resources,
    _vote_size,
    _embedding,
    _pipeline_depth,
    _engines,
    _one_actor_per_server,
    _one_dtype,
    _nccl,
    _data_files,
    _bands,
    _best,
)
ENGINE_CHECKS: tuple[Callable[[_Engine], Iterator[str]], ...] = (_capabilities, _gpu_share, _url_form)


def explain(error: ValidationError, *, inside: str = "") -> str:
    """Pydantic's findings, one a line, as `key: rule, got value`. inside: the section of the model that failed."""
    lines = []
    for found in error.errors(include_url=False):
        key = ".".join(str(part) for part in (inside, *found["loc"]) if part != "")
        message = found["msg"].removeprefix("Value error, ")
        if found["type"] == "model_type":
            message = "must be keys with values"
        value = MASK if is_secret(key) else found["input"]
        lines.append(f"{key}: {message}, got {value!r}" if key else message)
    return "\n".join(dict.fromkeys(lines))


def section_of(settings: str) -> str:
    """The key of TrainConfig that holds the settings class of that name, such as learner.lora; empty for TrainConfig itself."""
    return next((key for key, kind in _sections(TrainConfig, "") if kind.__name__ == settings), "")


def _sections(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield f"{prefix}{name}", kind
            yield from _sections(kind, f"{prefix}{name}.")
