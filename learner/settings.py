"""Keys of the training side. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from corewarding.dataflow.settings import Settings
from corewarding.rewards.rules.contract import KLReference


class TrainSettings(Settings):
    """The optimizer and the size of the run."""

    questions_per_update: int = Field(128, ge=1)
    """Questions in one optimizer update."""
    updates: int = Field(100, ge=1)
    """Optimizer updates in the run; K of the teacher's schedule."""
    seed: int = 0
    """Of question order, sampling and everything else that draws."""
    lr: float = Field(3e-6, gt=0)
    """Peak learning rate of AdamW."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """After the warm-up: cosine to zero, or constant."""
    warmup_frac: float = Field(0.1, ge=0, lt=1)
    """Share of the updates in which the learning rate rises linearly."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's."""
    eps: float = Field(1e-8, gt=0)
    """AdamW's."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's."""
    grad_clip: float = Field(1.0, gt=0)
    """Largest global gradient norm."""


class LearnerSettings(Settings):
    """How the learner is laid out on the machine."""

    ranks: int = Field(1, ge=1)
    """FSDP2 ranks, one process each."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: cuda where a GPU was set aside (gpus_per_rank > 0), else cpu."""
    cpus_per_rank: float = Field(1.0, gt=0)
    """CPUs Ray sets aside for one rank."""
    gpus_per_rank: float = Field(0.0, ge=0)
    """GPUs Ray sets aside for one rank; of a share, like 0.5, the rank takes no more memory than that."""
    resources: dict[str, float] = Field(default_factory=dict)
    """Ray's custom resources that one rank holds, e.g. {train_node: 1}: it runs on nodes started with `--resources` that have them."""
    threads: int = Field(1, ge=1)
    """OpenMP threads of one rank."""
    cores: tuple[int, ...] | None = None
    """CPU cores that all threads of a rank's process may use; None: any."""
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the forward and backward pass; master weights, optimizer and teacher are always float32."""
    micro_batch_tokens: int = Field(16384, ge=1)
    """Token budget of one packed micro-batch, on each rank."""
    row_tokens: int = Field(512, ge=1)
    """Prompts with their completions are packed into rows of at most this many tokens (attention costs rows x row_tokens^2); a
    longer sample gets a row of its own length."""
    logprob_chunk_tokens: int = Field(2048, ge=1)
    """Tokens whose logits exist at one time."""
    activation_checkpointing: bool = False
    """Recompute each layer in the backward pass instead of keeping its activations."""


class LossSettings(Settings):
    """The clipped policy-gradient objective."""

    eps_low: float = Field(0.2, gt=0, lt=1)
    """The ratio is clipped below 1 - eps_low."""
    eps_high: float = Field(0.2, gt=0)
    """The ratio is clipped above 1 + eps_high."""
    dual_clip: float | None = Field(3.0, gt=1)
    """For negative advantages the surrogate is at least dual_clip * A; None: off."""
    aggregation: Literal["token_mean", "sequence_mean"] = "token_mean"
    """Mean over all loss tokens of a view, or over each completion's tokens and then over completions (eq. 4)."""
    skip_zero_advantage: bool = False
    """Leave groups whose advantages are all zero out of gain, KL and denominator."""
    mask_truncated: bool = False
    """Leave completions that hit max_new_tokens out of the loss (they still vote)."""


class CorrectionSettings(Settings):
    """Importance correction for tokens sampled by older weights."""

    mode: str = "decoupled"
    """decoupled, bypass, interpolated, none (see docs/algorithm.md), or a plug-in's."""
    cap: float = Field(2.0, gt=0)
    """Truncation C of the importance weight."""
    token_band: tuple[float, float] | None = None
    """IcePop: tokens whose rho lies outside get weight 0 and inside rho itself (replaces the cap); e.g. [0.5, 5.0]."""
    sequence_band: tuple[float, float] | None = None
    """Completions whose exp(mean log rho) lies outside are masked; e.g. [0.99, 1.01]."""
    veto: float | None = Field(1e-4, gt=0, lt=1)
    """A completion with any rho below this is masked; None: off."""


class KLSettings(Settings):
    """The pull towards a reference."""

    coef: float | None = Field(None, ge=0)
    """beta; None: the rule's (0.005 for I and the baselines, 0.001 for II and III)."""
    reference: KLReference | None = None
    """None: the rule's (teacher for II and III, initial otherwise)."""


class AdvantageSettings(Settings):
    """Group-relative advantages."""

    normalize: Literal["std", "none"] = "std"
    """Divide by the group's standard deviation, or only subtract its mean."""


class TeacherSettings(Settings):
    """The EMA teacher."""

    alpha_start: float = Field(0.01, ge=0, le=1)
    """Share of the policy absorbed at the first update."""
    alpha_end: float = Field(1e-4, ge=0, le=1)
    """... and at the last; cosine between."""
    update_every: int = Field(1, ge=1)
    """Updates between two EMA steps."""
    publish_every: int = Field(1, ge=1)
    """Updates between two broadcasts of the teacher to its engines."""
    freeze: bool = False
    """Keep the initial model as the teacher (the paper's ablation)."""


class StalenessSettings(Settings):
    """How far the policy may run ahead of its samples."""

    max: int = Field(4, ge=0)
    """Hard bound at consumption: updates done minus those in the oldest policy token of a question; 0 is synchronous."""
    pipeline_depth: int | None = Field(None, ge=0)
    """Updates to sample ahead; None: min(1, max)."""
    on_exceed: Literal["wait", "drop", "withhold"] = "wait"
    """`wait`: the learner waits for a question that would pass the bound; nothing is dropped. `drop`: a question that passed it
    is dropped and one new is asked. `withhold`: a completion that passed it votes and counts in its group's mean and deviation,
    but enters no loss."""

    @property
    def depth(self) -> int:
        return min(1, self.max) if self.pipeline_depth is None else self.pipeline_depth


class LabelSettings(Settings):
    """How old a teacher's vote may be."""

    max_staleness: int = Field(8, ge=0)
    """Updates done minus those the voting teacher had absorbed; not judged when the teacher is frozen."""
    on_exceed: Literal["wait", "drop"] = "wait"
    """`wait`: the learner waits for a question that would pass the bound. `drop`: it is dropped and one new is asked."""


class PublishSettings(Settings):
    """Weights on their way to the engines."""

    every_updates: int = Field(1, ge=1)
    """Updates between two broadcasts of the policy."""
    backend: Literal["auto", "gloo", "nccl", "ipc"] = "auto"
    """`nccl`: each process has a GPU. `ipc`: all on one GPU (CUDA IPC), or on one node's CPUs (shared memory). `gloo`: anything,
    through the host. `auto`: the first of these that fits, on CPUs gloo."""
    bucket_mb: float = Field(512.0, gt=0)
    """Size of one of the two transfer buckets, in MiB."""
    checksum_every: int = Field(1, ge=0)
    """Broadcasts between two that carry checksums; 0: never."""
    timeout_s: float = Field(60.0, gt=0)
    """A member that does not answer this long is fenced and the group rebuilt without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerPlan:
    """The part of a run's configuration that the learner needs."""

    model_path: str
    kl_coef: float
    kl_reference: KLReference
    keep_teacher: bool  # the rule or the KL term uses the teacher
    train: TrainSettings = field(default_factory=TrainSettings)
    learner: LearnerSettings = field(default_factory=LearnerSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    correction: CorrectionSettings = field(default_factory=CorrectionSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
