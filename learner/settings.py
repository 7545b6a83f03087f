"""The keys of the training side. Imports no torch."""

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
    """Optimizer updates in the run: the length of the schedules of learning rate and teacher."""
    seed: int = 0
    """Seed of question order, sampling and every other random choice."""
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
    """How the learner uses the machine."""

    ranks: int = Field(1, ge=1)
    """FSDP2 ranks, one process each."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: cuda if a GPU was reserved (gpus_per_rank > 0), else cpu."""
    cpus_per_rank: float = Field(1.0, gt=0)
    """CPUs that Ray reserves for one rank."""
    gpus_per_rank: float = Field(0.0, ge=0)
    """GPUs that Ray reserves for one rank. With a share like 0.5, the rank uses at most that part of the GPU's memory."""
    resources: dict[str, float] = Field(default_factory=dict)
    """Ray's custom resources that one rank holds, e.g. {train_node: 1}: it runs on nodes started with these `--resources`."""
    threads: int = Field(1, ge=1)
    """OpenMP threads of one rank."""
    cores: tuple[int, ...] | None = None
    """CPU cores that all threads of a rank's process may use; None: any."""
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of weights and activations in the forward and backward pass. Master weights, optimizer, teacher and
    logits are always float32."""
    micro_batch_tokens: int = Field(16384, ge=1)
    """Token budget of one packed micro-batch on one rank."""
    row_tokens: int = Field(512, ge=1)
    """Prompts with their completions are packed into rows of at most this many tokens (attention costs rows x row_tokens^2); a
    longer sample gets its own row."""
    logprob_chunk_tokens: int = Field(2048, ge=1)
    """Number of tokens whose logits are in memory at one time."""
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
    """Leave groups with only zero advantages out of gain, KL and denominator."""
    mask_truncated: bool = False
    """Leave completions that hit max_new_tokens out of the loss (they still vote)."""


class CorrectionSettings(Settings):
    """Importance correction for tokens sampled by older weights."""

    mode: str = "decoupled"
    """decoupled, bypass, interpolated, none (see docs/algorithm.md), or a plug-in's."""
    cap: float = Field(2.0, gt=0)
    """Truncation C of the importance weight."""
    token_band: tuple[float, float] | None = None
    """IcePop: a token with rho outside gets weight 0, inside it gets rho itself (this replaces the cap); e.g. [0.5, 5.0]."""
    sequence_band: tuple[float, float] | None = None
    """A completion with exp(mean log rho) outside is masked; e.g. [0.99, 1.01]."""
    veto: float | None = Field(1e-4, gt=0, lt=1)
    """A completion with any rho below this is masked; None: off."""


class KLSettings(Settings):
    """The KL term towards a reference."""

    coef: float | None = Field(None, ge=0)
    """beta; None: the rule's (0.005 for I and the baselines, 0.001 for II and III)."""
    reference: KLReference | None = None
    """None: the rule's (teacher for II and III, initial otherwise)."""


class AdvantageSettings(Settings):
    """Group-relative advantages."""

    normalize: Literal["std", "none"] = "std"
    """`std`: divide by the group's standard deviation. `none`: only subtract its mean."""


class TeacherSettings(Settings):
    """The EMA teacher."""

    alpha_start: float = Field(0.01, ge=0, le=1)
    """Share of the policy absorbed at the first update."""
    alpha_end: float = Field(1e-4, ge=0, le=1)
    """Share of the policy absorbed at the last update; cosine in between."""
    update_every: int = Field(1, ge=1)
    """Updates between two EMA steps."""
    publish_every: int = Field(1, ge=1)
    """Updates between two publishes of the teacher to its engines."""
    freeze: bool = False
    """Keep the initial model as the teacher (the paper's ablation)."""


class StalenessSettings(Settings):
    """How far the policy may run ahead of its samples."""

    max: int = Field(4, ge=0)
    """Hard bound when a question is trained: updates done minus updates in the weights of its oldest policy token; 0: synchronous."""
    pipeline_depth: int | None = Field(None, ge=0)
    """Updates to sample ahead; None: min(1, max)."""
    on_exceed: Literal["wait", "drop", "withhold"] = "wait"
    """`wait`: the learner waits for a question that would exceed the bound; nothing is dropped. `drop`: a question over the bound is
    dropped and a new one is asked. `withhold`: a completion over the bound still votes and counts in its group's mean and
    deviation, but is left out of the loss."""

    @property
    def depth(self) -> int:
        return min(1, self.max) if self.pipeline_depth is None else self.pipeline_depth


class LabelSettings(Settings):
    """How old a pseudo-label of the teacher may be."""

    max_staleness: int = Field(8, ge=0)
    """Updates done minus updates that the voting teacher had absorbed. Not checked for a frozen teacher."""
    on_exceed: Literal["wait", "drop"] = "wait"
    """`wait`: the learner waits for a question that would exceed the bound. `drop`: it is dropped and a new one is asked."""


class PublishSettings(Settings):
    """Publishing weights to the engines."""

    every_updates: int = Field(1, ge=1)
    """Updates between two publishes of the policy."""
    backend: Literal["auto", "gloo", "nccl", "ipc"] = "auto"
    """`nccl`: each process has its own GPU. `ipc`: all share one GPU (CUDA IPC) or one node's CPUs (shared memory). `gloo`: works
    everywhere, through host memory. `auto`: the first of these that fits; on CPUs gloo."""
    bucket_mb: float = Field(512.0, gt=0)
    """Size of one of the two transfer buckets, in MiB."""
    checksum_every: int = Field(1, ge=0)
    """Every how many publishes the weights carry checksums; 0: never."""
    timeout_s: float = Field(60.0, gt=0)
    """A receiver that does not answer for this long is fenced, and the group is rebuilt without it."""


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
