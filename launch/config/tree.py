"""The configuration tree: the settings of every part, frozen. Imports no torch and no ray."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from corewarding.actors.settings import EngineSettings, InflightSettings, RolloutSettings
from corewarding.dataflow.ids import Source
from corewarding.dataflow.settings import Questions, Seconds, Settings, Unit, Updates
from corewarding.evals.settings import EvalSettings
from corewarding.launch.config.paths import PACKAGE
from corewarding.learner.settings import (
    AdvantageSettings,
    CorrectionSettings,
    JournalSettings,
    KLSettings,
    LabelSettings,
    LearnerSettings,
    LossSettings,
    PublishSettings,
    StalenessSettings,
    TeacherSettings,
    TrainSettings,
)
from corewarding.questions.settings import DataSettings
from corewarding.rewards.rules.table import REWARD_RULES, GroupKind, RewardRule
from corewarding.rewards.settings import CollapseSettings, LabelsSettings, RuleSettings, VoteSettings


class ModelSettings(Settings):
    """The model that is trained."""

    path: str = "models/arithmetic-base"
    """The model to start from: a folder (in the working directory or in the package) or a Hugging Face hub id, which is downloaded
    before anything is started."""
    revision: str | None = Field(None, min_length=1)
    """Branch, tag or commit of a hub id; None: the newest of its main branch. model.json in the run directory records the commit, and
    a resumed run keeps it."""
    allow_unlisted: bool = False
    """Also train an architecture that is not listed in docs/architecture.md, when its log-probabilities on packed rows are those of
    transformers. Engines may still refuse it."""


class CheckpointSettings(Settings):
    """Checkpoints to resume from."""

    every_updates: Updates = Field(20, ge=0)
    """Updates between two checkpoints; 0: only after the last update, which always makes one."""
    keep: Annotated[int, Unit("checkpoints")] = Field(2, ge=1)
    """Newest checkpoints to keep; older ones are removed, apart from the best."""
    keep_best: Annotated[int, Unit("checkpoints")] = Field(0, ge=0)
    """Checkpoints to keep beside the newest: those with the best quick evaluation (greedy accuracy, or mean@n with
    eval.quick_samples). 0: none."""
    model_dtype: Literal["float32", "bfloat16"] | None = None
    """Number format of the weights in a checkpoint's `model/`, and of what `corewarding export` writes. None: learner.param_dtype."""


class RunSettings(Settings):
    """Run directory and limits."""

    name: str = Field("run", max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Folder of the run under `root`."""
    root: str = "runs"
    """Folder of all runs; made absolute when the configuration is loaded. On a cluster all nodes must share it."""
    resume: Literal["auto", "never", "must"] = "auto"
    """`auto`: continue an interrupted run of the same name; `never`: refuse its folder; `must`: refuse to start a new run."""
    max_wall_s: Seconds | None = Field(None, gt=0)
    """Seconds of training after which the run stops with a checkpoint; None: only after train.updates."""
    watchdog_s: Seconds = Field(300.0, gt=0)
    """Seconds without an update, a ready question or an answered task after which the run ends with an error that says who waits."""
    grace_s: Seconds = Field(30.0, gt=0)
    """Seconds that a run may take to finish its update and save a checkpoint after Ctrl-C or SIGTERM, or to finish a checkpoint under
    way after an error; after them it gives both up."""
    sigterm_exit_code: Annotated[int, Unit("exit code")] = Field(143, ge=0, le=255)
    """Exit code of a run that SIGTERM ended in order. Set 0 where the scheduler counts any other code as a failure."""
    fork: bool = True
    """On one Linux machine without GPUs, start the run's processes as forks of one that has imported torch: seconds sooner each, and
    in less memory. false: each is a new Python."""
    sample_questions: Questions = Field(4, ge=0)
    """Questions per update whose completions go to the sample log, with their votes and rewards, and for whose tokens the learner
    notes log-probabilities, importance weights and masks in tokens/, for `corewarding view` (with a journal); 0: none."""


TrackerName: TypeAlias = Literal["tensorboard", "wandb", "trackio", "mlflow", "prometheus"]


class ReportSettings(Settings):
    """Where a run's numbers go beside metrics.jsonl, which has all of them."""

    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    """Each works on a thread of its own; one that fails or hangs is named in the log, and the run goes on. wandb, trackio and mlflow
    need their client: `pip install 'corewarding[wandb]'`. prometheus hands the numbers to Ray, where Prometheus may read them."""
    scalars: Literal["default", "all"] = "default"
    """What trackers show: the scalars marked in docs/metrics.md, or all of them."""
    offline: bool = True
    """Trackers write into `trackers/` of the run directory and open no connection. false: they send to where their own variables of
    the environment say (WANDB_BASE_URL, MLFLOW_TRACKING_URI, TRACKIO_SPACE_ID, ...)."""
    prometheus_port: Annotated[int, Unit("port")] = Field(9464, ge=1024, le=65535)
    """Port of 127.0.0.1 at which Prometheus reads the numbers, and Ray's own, while `trackers` names prometheus. On a cluster they
    are read where its Ray says."""
    project: str = Field("corewarding", min_length=1, max_length=100)
    """Name under which trackers file the run."""


Scheduled: TypeAlias = "int | float | str | None"
"""What a scheduled key may hold; which of these, the key itself says."""
TeacherValue: TypeAlias = "bool | int | float | str | dict[str, bool | int | float | str] | list[int] | None"
"""What a key of `engine` may hold; which of these, the key itself says."""


class TrainConfig(Settings):
    """One run."""

    plugins: tuple[str, ...] = ()
    """Python files or modules that register rules, readers, metrics, engines and the like; imported in every process. A file is
    looked for in the configuration's folder and in the working directory, and made absolute."""
    rule: str = "co_rewarding_ii"
    """Reward rule: how completions become rewards, for example co_rewarding_i, _ii, _iii or majority_vote. `corewarding train --help`
    ends with all names, those of plug-ins included."""
    schedules: dict[str, dict[int, Scheduled]] = Field(default_factory=dict)
    """Keys that change during the run, as {staleness.max: {0: 1, 100: 4}}: 1 from the start, 4 after 100 updates. These can:
    staleness.max, staleness.pipeline_depth, train.lr, train.weight_decay, train.grad_clip, loss.eps_low, loss.eps_high,
    loss.dual_clip, correction.mode, correction.cap, correction.veto, kl.coef, teacher.alpha_start, teacher.alpha_end. A new bound
    holds for the questions that start from then on (with staleness.on_exceed withhold: for the updates from then on)."""
    model: ModelSettings = ModelSettings()
    """The model that is trained."""
    data: DataSettings = DataSettings()
    """Questions and prompts."""
    rollout: RolloutSettings = RolloutSettings()
    """What is sampled, and by how many actors."""
    engine: EngineSettings = EngineSettings()
    """The engine inside a rollout actor."""
    teacher_engine: dict[str, TeacherValue] = Field(default_factory=dict)
    """Keys of `engine` that differ for the teacher's actors, for example {kind: sglang, python: .venv-sglang/bin/python}."""
    inflight: InflightSettings = InflightSettings()
    """What happens to running completions at a swap of weights."""
    vote: VoteSettings = VoteSettings()
    """How a majority vote becomes a label."""
    collapse: CollapseSettings = CollapseSettings()
    """Detection of reward collapse from label-free metrics."""
    advantage: AdvantageSettings = AdvantageSettings()
    """How rewards become advantages."""
    staleness: StalenessSettings = StalenessSettings()
    """How old a sample may be when it is trained on."""
    label: LabelSettings = LabelSettings()
    """Where pseudo-labels come from, and how old a teacher's vote may be."""
    labels: LabelsSettings = LabelsSettings()
    """A budget of true labels."""
    rule_options: RuleSettings = RuleSettings()
    """Numbers of single reward rules."""
    correction: CorrectionSettings = CorrectionSettings()
    """Importance correction of tokens that older weights sampled."""
    loss: LossSettings = LossSettings()
    """The policy-gradient loss."""
    kl: KLSettings = KLSettings()
    """The KL term and its reference."""
    teacher: TeacherSettings = TeacherSettings()
    """The EMA teacher."""
    train: TrainSettings = TrainSettings()
    """The optimizer and the size of the run."""
    learner: LearnerSettings = LearnerSettings()
    """The learner's processes and memory."""
    publish: PublishSettings = PublishSettings()
    """How weights are published to the engines."""
    eval: EvalSettings = EvalSettings()
    """Held-out evaluation."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    """Checkpoints."""
    journal: JournalSettings = JournalSettings()
    """The replay buffer's journal."""
    run: RunSettings = RunSettings()
    """Run directory and limits."""
    report: ReportSettings = ReportSettings()
    """Trackers, and what they show."""

    @property
    def reward_rule(self) -> RewardRule:
        return REWARD_RULES[self.rule].labelled(self.label.source)

    def sampled_size(self, kind: GroupKind) -> int:
        """Completions sampled of a group of this kind."""
        return (
            (self.rollout.vote_size or self.rollout.group_size)
            if kind in self.reward_rule.voters
            else self.rollout.group_size
        )

    @property
    def asked_data(self) -> DataSettings:
        """`data` without `data.rephrased` where the rule asks original wordings only: that file is then not needed."""
        asked = self.reward_rule.needs_rephrased
        return self.data if asked else self.data.model_copy(update={"rephrased": None})

    def engine_of(self, source: Source) -> EngineSettings:
        """The engine settings of that source's actors."""
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
    def has_kl_term(self) -> bool:
        """Whether the loss of any update has a KL term. Its reference is then kept from the start of the run."""
        later = self.schedules.get("kl.coef", {}).values()
        return self.kl_reference != "none" and (self.kl_coef > 0 or any(coef != 0 for coef in later))

    @property
    def keeps_teacher(self) -> bool:
        return self.reward_rule.needs_teacher or (self.kl_reference == "teacher" and self.has_kl_term)

    @property
    def model_folder(self) -> str:
        """`model.path` as a folder of the working directory or of the package; a hub id stays as it is."""
        inside = PACKAGE / self.model.path
        return str(inside) if not Path(self.model.path).exists() and inside.exists() else self.model.path

    @property
    def resolved_rule_options(self) -> RuleSettings:
        """`rule_options` with an absolute model folder, because the replay buffer may run in another directory."""
        model = self.rule_options.evol_embedding_model
        if model is None or not Path(model).exists():
            return self.rule_options
        return self.rule_options.model_copy(update={"evol_embedding_model": str(Path(model).resolve())})

    @property
    def longest_sequence(self) -> int:
        """Most tokens of a prompt with its completion."""
        return self.data.max_prompt_tokens + self.rollout.max_new_tokens

    @property
    def row_tokens(self) -> int:
        """Tokens of a packed row of the learner."""
        group = self.data.max_prompt_tokens + self.rollout.group_size * self.rollout.max_new_tokens
        return self.learner.row_length(group)

    @property
    def keeps_journal(self) -> bool:
        return self.journal.retain != "off"

    @property
    def completions_per_update(self) -> int:
        return self.train.questions_per_update * sum(map(self.sampled_size, self.reward_rule.groups))

    def derived(self) -> dict[str, str]:
        """Sizes that follow from the keys, for the table printed at start."""
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
