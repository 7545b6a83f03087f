"""The configuration: every part's settings in one frozen tree, from a YAML file and the command line.

Imports no torch and no ray, so that a configuration can be read and checked anywhere. Unknown keys are errors at any depth.
"""

from __future__ import annotations

import difflib
import re
import warnings
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from actors.settings import EngineSettings, InflightSettings, RolloutSettings
from dataflow.settings import Settings
from dataflow.types import Source
from evals.settings import EvalSettings
from launch.errors import UserError
from learner.settings import (
    AdvantageSettings,
    CorrectionSettings,
    KLSettings,
    LabelSettings,
    LearnerSettings,
    LossSettings,
    PublishSettings,
    StalenessSettings,
    TeacherSettings,
    TrainSettings,
)
from questions.settings import DataSettings
from rewards.rules import REWARD_RULES, RewardRule
from rewards.settings import CollapseSettings, VoteSettings

PROJECT_ROOT = Path(__file__).resolve().parent.parent


class ConfigError(UserError):
    """A key, a value or a combination that cannot be run."""


class ModelSettings(Settings):
    """The model that is trained."""

    path: str = "models/arithmetic-base"
    """Folder (relative to the working directory or the project) or Hugging Face hub id."""


class CheckpointSettings(Settings):
    """What is kept of a run to go on from."""

    every_updates: int = Field(20, ge=0)
    """Updates between two checkpoints; the last update always makes one. 0: only the last."""
    keep: int = Field(2, ge=1)
    """Newest checkpoints that are kept."""


class RunSettings(Settings):
    """Where the run lives and when it gives up."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Folder of the run under `root`."""
    root: str = "runs"
    """Folder of all runs; made absolute when the configuration is loaded."""
    resume: Literal["auto", "never", "must"] = "auto"
    """`auto`: go on with an interrupted run of the same name; `never`: refuse its folder; `must`: refuse to start afresh."""
    max_wall_s: float | None = Field(None, gt=0)
    """Stop with a checkpoint after this many seconds of training."""
    watchdog_s: float = Field(300.0, gt=0)
    """End the run when neither an update nor a whole question happened for so long."""
    sample_questions: int = Field(4, ge=0)
    """Questions per update whose completions go to the sample log."""


class TrainConfig(Settings):
    """One run."""

    rule: str = "co_rewarding_ii"
    """Reward rule: ground_truth, majority_vote, self_certainty, entropy, random, co_rewarding_i, _ii or _iii."""
    model: ModelSettings = ModelSettings()
    """The model that is trained."""
    data: DataSettings = DataSettings()
    """Questions, and how a prompt is made of one."""
    rollout: RolloutSettings = RolloutSettings()
    """What is sampled."""
    engine: EngineSettings = EngineSettings()
    """The sampler inside a rollout actor."""
    teacher_engine: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Keys of `engine` that are different for the teacher's actors, for example {kind: sglang, python: .venv-sglang/bin/python}."""
    inflight: InflightSettings = InflightSettings()
    """Running completions at a swap of weights."""
    vote: VoteSettings = VoteSettings()
    """How completions elect a label."""
    collapse: CollapseSettings = CollapseSettings()
    """Alarms for a model that agrees with itself about nothing."""
    advantage: AdvantageSettings = AdvantageSettings()
    """Rewards to advantages."""
    staleness: StalenessSettings = StalenessSettings()
    """How far the policy may run ahead of its samples."""
    label: LabelSettings = LabelSettings()
    """How old a teacher's vote may be."""
    correction: CorrectionSettings = CorrectionSettings()
    """Importance correction."""
    loss: LossSettings = LossSettings()
    """The objective."""
    kl: KLSettings = KLSettings()
    """The pull towards a reference."""
    teacher: TeacherSettings = TeacherSettings()
    """The EMA teacher."""
    train: TrainSettings = TrainSettings()
    """The optimizer and the size of the run."""
    learner: LearnerSettings = LearnerSettings()
    """The learner's layout."""
    publish: PublishSettings = PublishSettings()
    """Weights on their way to the engines."""
    eval: EvalSettings = EvalSettings()
    """Held-out evaluation."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    """Checkpoints."""
    run: RunSettings = RunSettings()
    """Run directory and limits."""

    @property
    def reward_rule(self) -> RewardRule:
        return REWARD_RULES[self.rule]

    def engine_of(self, source: Source) -> EngineSettings:
        """The sampler of that source's actors."""
        if source == "policy" or not self.teacher_engine:
            return self.engine
        return EngineSettings.model_validate(self.engine.model_dump() | self.teacher_engine)

    @property
    def kl_coef(self) -> float:
        return self.reward_rule.kl_coef if self.kl.coef is None else self.kl.coef

    @property
    def kl_reference(self) -> Literal["initial", "teacher", "none"]:
        return self.kl.reference or self.reward_rule.kl_reference

    @property
    def keeps_teacher(self) -> bool:
        return self.reward_rule.needs_teacher or (self.kl_reference == "teacher" and self.kl_coef > 0)

    @property
    def model_folder(self) -> str:
        """`model.path`, looked up in the working directory and in the project; a hub id stays as it is."""
        inside = PROJECT_ROOT / self.model.path
        return str(inside) if not Path(self.model.path).exists() and inside.exists() else self.model.path

    @property
    def completions_per_update(self) -> int:
        return self.train.questions_per_update * self.rollout.group_size * len(self.reward_rule.groups)

    def derived(self) -> dict[str, str]:
        """The sizes that follow from the keys, for the table printed at start."""
        rule, per_update = self.reward_rule, self.train.questions_per_update
        sampled, trained = len(rule.groups), len(rule.trained)
        return {
            "groups sampled per question": f"{sampled} ({', '.join(f'{s}/{v}' for v, s in rule.groups)})",
            "completions per update": f"{self.completions_per_update} ({per_update * self.rollout.group_size * trained} trained)",
            "completion tokens per update": f"at most {self.completions_per_update * self.rollout.max_new_tokens:,}",
            "completions in the run": f"{self.completions_per_update * self.train.updates:,}",
            "sampled ahead": f"{self.staleness.depth} updates, hard bound {self.staleness.max}",
            "KL": f"{self.kl_coef:g} towards {self.kl_reference}",
        }

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for problem in _problems(self):
            raise ValueError(problem)
        if self.correction.mode == "none" and self.staleness.max > 0:
            warnings.warn(
                f"correction.mode is none with staleness.max {self.staleness.max}: older tokens are trained on as if the "
                "policy had just sampled them",
                stacklevel=2,
            )
        return self


def _problems(config: TrainConfig) -> list[str]:
    """What no single field can know."""
    problems = []
    if config.rule not in REWARD_RULES:
        near = difflib.get_close_matches(config.rule, REWARD_RULES, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(REWARD_RULES)}"
        return [f"rule {config.rule!r} does not exist{hint}"]
    if config.rollout.group_size < 2:
        problems.append(
            f"rollout.group_size must be at least 2, got {config.rollout.group_size}: a group of one has no mean to be "
            "compared with, so every advantage is zero"
        )
    if config.staleness.on_exceed == "wait" and config.staleness.depth > config.staleness.max:
        problems.append(
            f"staleness.pipeline_depth must be at most staleness.max = {config.staleness.max}, got {config.staleness.depth}: "
            "samples drawn further ahead would be too old to be trained on, and staleness.on_exceed is wait"
        )
    problems += _engine_problems(config)
    if config.data.kind == "files" and config.data.train is None:
        problems.append("data.kind files needs data.train: a Parquet or JSONL file, a folder or a hub id")
    for key in ("token_band", "sequence_band"):
        band = getattr(config.correction, key)
        if band is not None and not 0 < band[0] < band[1]:
            problems.append(f"correction.{key} must be two rising positive numbers, got {list(band)}")
    return problems


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
        if engine.kind == "scripted" and engine.script is None:
            problems.append(f"{name}.kind scripted needs engine.script, a JSONL file of recorded completions")
        if engine.deterministic and (engine.kind != "embedded" or engine.threads != 1):
            problems.append(
                f"{name}.deterministic needs engine.kind embedded and engine.threads 1, got {engine.kind} and {engine.threads}"
            )
        if engine.arguments and engine.kind not in ("vllm", "sglang"):
            problems.append(f"{name}.arguments are vLLM's or SGLang's, but {name}.kind is {engine.kind}")
        if engine.tensor_parallel > 1 and engine.kind not in ("vllm", "sglang"):
            problems.append(
                f"{name}.tensor_parallel {engine.tensor_parallel} needs {name}.kind vllm or sglang, got {engine.kind}"
            )
        if 0 < config.rollout.gpus_per_actor < engine.tensor_parallel > 1:
            problems.append(
                f"{name}.tensor_parallel {engine.tensor_parallel} needs as many rollout.gpus_per_actor, "
                f"got {config.rollout.gpus_per_actor:g}"
            )
        share = config.rollout.gpus_per_actor
        if 0 < share < 1 and engine.kind in ("vllm", "sglang") and engine.memory_fraction > share:
            problems.append(
                f"{name}.memory_fraction {engine.memory_fraction:g} is more than an actor's share of a GPU, "
                f"rollout.gpus_per_actor {share:g}"
            )
        if engine.url is not None and engine.kind != "sglang":
            problems.append(f"{name}.url is of an SGLang server, but {name}.kind is {engine.kind}")
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


def load_config(path: str | Path) -> TrainConfig:
    """The configuration in a YAML file. ConfigError names file, key, value and remedy."""
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"{path}: there is no such configuration file")
    try:
        content = yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: the top level must be keys, got a {type(content).__name__}")
    return make_config(content, where=str(path))


def make_config(content: dict[str, Any], *, where: str) -> TrainConfig:
    """A validated configuration with an absolute `run.root`."""
    _refuse_unknown(content, TrainConfig, where, ())
    try:
        config = TrainConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error)}") from error
    root = str(Path(config.run.root).expanduser().resolve())
    return config.model_copy(update={"run": config.run.model_copy(update={"root": root})})


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


def _refuse_unknown(content: dict[str, Any], model: type[BaseModel], where: str, path: tuple[str, ...]) -> None:
    for key, value in content.items():
        full = ".".join((*path, str(key)))
        if key not in model.model_fields:
            near = difflib.get_close_matches(str(key), model.model_fields, n=1)
            hint = (
                f"did you mean {'.'.join((*path, near[0]))}?" if near else f"there are {', '.join(model.model_fields)}"
            )
            raise ConfigError(f"{where}: unknown key {full}; {hint}")
        kind = model.model_fields[key].annotation
        if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, BaseModel):
            _refuse_unknown(value, kind, where, (*path, str(key)))
