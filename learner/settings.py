"""The keys of the training side. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, create_model

from corewarding.dataflow.settings import (
    Amount,
    Core,
    CPUs,
    Fraction,
    GPUs,
    Mebibytes,
    Number,
    Processes,
    Questions,
    Seconds,
    Settings,
    Share,
    Threads,
    Tokens,
    Unit,
    Updates,
    Whole,
)
from corewarding.learner.lora.settings import LoraSettings
from corewarding.learner.token_log.plan import TokenLogPlan
from corewarding.rewards.advantages import Normalize
from corewarding.rewards.rules.contract import KLReference, LabelFrom


class TrainSettings(Settings):
    """The optimizer and the size of the run."""

    questions_per_update: Questions = Field(128, ge=1, le=10**6)
    """Questions in one optimizer update; each gives rollout.group_size completions per trained group."""
    updates: Updates = Field(100, ge=1, le=10**9)
    """Optimizer updates in the run: the length of the schedules of learning rate and teacher."""
    seed: Whole = Field(0, ge=0, lt=2**63)
    """Seed of question order, sampling and every other random choice."""
    lr: Number = Field(3e-6, gt=0)
    """Peak learning rate of AdamW."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: `cosine` falls to zero at the last update, `constant` stays at `lr`."""
    warmup_frac: Fraction = Field(0.1, ge=0, lt=1)
    """Fraction of the updates in which the learning rate rises linearly from zero to `lr`."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Decay rates per update of AdamW's running means of the gradient and of its square."""
    eps: Number = Field(1e-8, gt=0)
    """Number that AdamW adds to the root of the mean squared gradient, so that it never divides by zero."""
    weight_decay: Number = Field(0.01, ge=0)
    """AdamW's decoupled weight decay: each update shrinks the weights by learning rate * weight_decay; 0: none."""
    grad_clip: Number = Field(1.0, gt=0)
    """Largest norm of the gradient over all parameters; a longer gradient is scaled down to it before the step."""


SHORTEST_ROW = 512
"""Tokens of a row, if the groups are shorter and no key says otherwise."""
Offloadable: TypeAlias = Literal["optimizer", "teacher", "reference"]
"""What a learner rank can keep in the host's memory."""
STREAMED_ELEMENTS = 2**24
"""Elements of each offloaded tensor that are on a GPU at one time while they are changed, twice: the next ones arrive meanwhile."""


def _once(parts: tuple[Offloadable, ...]) -> tuple[Offloadable, ...]:
    if len(set(parts)) < len(parts):
        raise ValueError("must name each part once")
    return parts


class LearnerSettings(Settings):
    """How the learner uses the machine."""

    ranks: Processes = Field(1, ge=1, le=10**4)
    """FSDP2 ranks over which model and optimizer are sharded, a process each."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of every rank. `auto`: cuda if a GPU was reserved (gpus_per_rank > 0), else cpu."""
    cpus_per_rank: CPUs = Field(1.0, gt=0)
    """CPUs that Ray reserves for one rank; may be a fraction."""
    gpus_per_rank: GPUs = Field(0.0, ge=0)
    """GPUs that Ray reserves for one rank; 0 runs it on the CPU. With a share like 0.5, the rank
    uses at most that part of the GPU's memory."""
    resources: dict[str, Amount] = Field(default_factory=dict)
    """Custom Ray resources of one rank, e.g. {train_node: 1}; it runs on nodes that were started with them
    (`ray start --resources`)."""
    threads: Threads = Field(1, ge=1)
    """OpenMP threads of one rank. More threads than cores are several times slower."""
    cores: tuple[Core, ...] | None = Field(None, min_length=1)
    """CPU cores, by number, for all threads of a rank's process; None: any."""
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of weights and activations in the forward and backward pass. Master weights, optimizer, teacher and
    logits are always float32."""
    micro_batch_tokens: Tokens = Field(16384, ge=1)
    """Tokens of one packed micro-batch on one rank; fewer need less memory."""
    row_tokens: Tokens | None = Field(None, ge=1)
    """Prompts with their completions are packed into rows of at most this many tokens; a longer sample gets its own row. Attention
    goes over each completion and its prompt alone, so longer rows cost no more, and more completions share a prompt. None: room for
    all completions of a question's group with their prompt, at least 512 and at most micro_batch_tokens."""
    logprob_chunk_tokens: Tokens = Field(1024, ge=1)
    """Tokens whose logits are in memory at one time; fewer need less memory."""
    start_timeout_s: Seconds = Field(300.0, gt=0)
    """Seconds in which all ranks must have met and loaded the model."""
    max_restarts: Annotated[int, Unit("restarts")] = Field(3, ge=0)
    """Restarts of all ranks after the death of one, with the newest checkpoint and the updates since then made again from the journal;
    one more death ends the run. Without a journal every death does."""
    deterministic: bool = False
    """Only use operations that give the same bits whenever they are repeated. On a GPU this costs speed, and makes a replay, a resumed
    run and a learner that comes back bit-equal there, too. On the CPU they are without it."""
    activation_checkpointing: bool = False
    """Recompute each layer in the backward pass instead of keeping its activations."""
    compile: bool = False
    """torch.compile for each layer, without its attention: faster passes after a first update that takes a minute or more longer."""
    offload: Annotated[tuple[Offloadable, ...], AfterValidator(_once)] = ()
    """What a rank keeps in the host's memory instead of its GPU's, with the same numbers bit for bit. Bytes of GPU memory that each
    saves per trained parameter, divided by the ranks: `optimizer` 8; `teacher` 4; `reference` (the initial weights of the KL term) 2
    or 4, as in the model's folder; the set of the KL term 4 more while it is used. It costs as much memory of the host, and the
    transfer of all of it to the GPU, and back where it changes, in each update. On the CPU it saves nothing."""
    lora: LoraSettings = LoraSettings()
    """Adapters of low rank, which are trained instead of the model's weights."""

    def row_length(self, group_tokens: int = 0) -> int:
        """row_tokens, or what None stands for. group_tokens: of the longest prompt with all its completions."""
        if self.row_tokens is not None:
            return self.row_tokens
        return max(SHORTEST_ROW, min(group_tokens, self.micro_batch_tokens))


class LossSettings(Settings):
    """The clipped policy-gradient objective."""

    eps_low: Number = Field(0.2, gt=0, lt=1)
    """The ratio of new to old token probability is clipped below 1 - eps_low."""
    eps_high: Number = Field(0.2, gt=0)
    """The ratio of new to old token probability is clipped above 1 + eps_high."""
    dual_clip: Number | None = Field(3.0, gt=1)
    """For a negative advantage A the surrogate is at least dual_clip * A, so one token cannot dominate; None: off."""
    aggregation: Literal["token_mean", "sequence_mean"] = "token_mean"
    """`token_mean`: mean over all loss tokens of a wording. `sequence_mean`: mean over each completion's tokens, then over
    completions (eq. 4 of the paper)."""
    skip_zero_advantage: bool = False
    """Leave groups whose advantages are all zero out of gain, KL and denominator."""
    mask_truncated: bool = False
    """Leave completions that were cut at rollout.max_new_tokens out of the loss; they still vote."""


class CorrectionSettings(Settings):
    """Importance correction for tokens sampled by older weights."""

    mode: str = "decoupled"
    """How the loss corrects for older samplers. `decoupled`: ratios to the present policy, truncated importance weights. `bypass`:
    ratios to the sampler, no weights. `interpolated`: ratios to a policy between both, nearer to the present one with
    age, and weights.
    `none`: no correction. Or a plug-in's mode; see docs/algorithm.md."""
    cap: Number = Field(2.0, gt=0)
    """Largest importance weight of a token; larger ones are truncated to it (C in docs/algorithm.md)."""
    token_band: tuple[float, float] | None = None
    """Two bounds of a token's importance ratio, e.g. [0.5, 5.0]: outside the token gets weight 0, inside the ratio itself (IcePop;
    this replaces `cap`). None: off."""
    sequence_band: tuple[float, float] | None = None
    """Two bounds of a completion's geometric mean importance ratio, e.g. [0.99, 1.01]: outside the completion enters no loss.
    None: off."""
    veto: Number | None = Field(1e-4, gt=0, lt=1)
    """A completion with one token whose importance ratio is below this enters no loss; None: off."""


class KLSettings(Settings):
    """The KL term towards a reference."""

    coef: Number | None = Field(None, ge=0)
    """Factor of the KL term in the loss (beta); None: the rule's own (0.001 with a teacher, else 0.005). 0: no KL term."""
    reference: KLReference | None = None
    """Model towards which the KL term pulls: the `initial` model, the EMA `teacher`, or `none`. None: the rule's own (teacher where it
    votes, else initial)."""


class AdvantageSettings(Settings):
    """Group-relative advantages."""

    normalize: Normalize = "std"
    """`std`: subtract the group's mean reward and divide by its standard deviation. `none`: only subtract the mean."""


class TeacherSettings(Settings):
    """The EMA teacher."""

    alpha_start: Fraction = Field(0.01, ge=0, le=1)
    """Fraction of the policy that the teacher absorbs at the first update."""
    alpha_end: Fraction = Field(1e-4, ge=0, le=1)
    """Fraction of the policy that the teacher absorbs at the last update; cosine in between."""
    update_every: Updates = Field(1, ge=1)
    """Updates between two EMA steps of the teacher."""
    publish_every: Updates = Field(1, ge=1)
    """Updates between two publishes of the teacher to its engines."""
    freeze: bool = False
    """Keep the initial model as the teacher, without EMA steps (the paper's ablation)."""


class JournalSettings(Settings):
    """What the replay buffer writes down, so that nothing is lost when a process dies and a run can be replayed."""

    retain: Literal["all", "since_oldest_checkpoint", "off"] = "all"
    """`all`: every completion, score and decision of the run is kept in journal/. `since_oldest_checkpoint`: only what is newer than
    the oldest checkpoint that is kept. `off`: no journal; then the death of the replay buffer ends the run."""
    max_restarts: Annotated[int, Unit("restarts")] = Field(10, ge=0)
    """Restarts of the replay buffer from its journal, after the death of its process, in one start of the run;
    one more death ends it."""


class StalenessSettings(Settings):
    """How far the policy may run ahead of its samples."""

    max: Updates = Field(4, ge=0)
    """Hard bound when a question is trained: updates done minus updates in the weights of its oldest policy token; 0: synchronous."""
    pipeline_depth: Updates | None = Field(None, ge=0)
    """Updates to sample ahead; None: min(1, max)."""
    on_exceed: Literal["wait", "drop", "withhold"] = "wait"
    """`wait`: the learner waits for a question that would exceed the bound; nothing is dropped. `drop`: a question over the bound is
    dropped and a new one is asked. `withhold`: a completion over the bound still votes and counts in its group's mean and
    deviation, but is left out of the loss."""

    @property
    def depth(self) -> int:
        return min(1, self.max) if self.pipeline_depth is None else self.pipeline_depth


_FROM_HELP = (
    "Who elects the labels: `policy` or `teacher` on the trained wording, or on the other wording (`other_view`, "
    "`teacher_other_view`; both wordings are then trained). None: as the rule says. majority_vote with the last three is "
    "co_rewarding_ii, _i and _iii."
)
# `from` is a keyword of Python, so no class body can name the field.
_FROM: dict[str, Any] = {"from": (LabelFrom | None, Field(None, description=_FROM_HELP))}
_LabelSource = create_model("_LabelSource", __base__=Settings, **_FROM)


class LabelSettings(_LabelSource):  # type: ignore[misc, valid-type]
    """Where pseudo-labels come from, and how old those of the teacher may be."""

    max_staleness: Updates = Field(8, ge=0)
    """Hard bound when a question is trained: updates done minus updates that the voting teacher had absorbed. Not checked for a
    frozen teacher."""
    on_exceed: Literal["wait", "drop"] = "wait"
    """`wait`: the learner waits for a question that would exceed the bound. `drop`: it is dropped and a new one is asked."""

    @property
    def source(self) -> LabelFrom | None:
        """The key `from`."""
        found: LabelFrom | None = getattr(self, "from")
        return found


class PublishSettings(Settings):
    """Publishing weights to the engines."""

    every_updates: Updates = Field(1, ge=1)
    """Updates between two publishes of the policy."""
    backend: Literal["auto", "gloo", "nccl", "ipc"] = "auto"
    """How weights travel. `nccl`: each process has its own GPU. `ipc`: all share one GPU (CUDA IPC) or one node's CPUs (shared
    memory). `gloo`: works everywhere, through host memory. `auto`: the first of these that fits; on CPUs gloo."""
    bucket_mb: Mebibytes = Field(512.0, gt=0)
    """Size of one of the two transfer buckets, in MiB."""
    checksum_every: Annotated[int, Unit("publishes")] = Field(1, ge=0)
    """Publishes between two whose weights carry checksums, which receivers verify; 1: every one, 0: never."""
    timeout_s: Seconds = Field(60.0, gt=0)
    """Seconds after which a receiver that does not answer is fenced, and the group is rebuilt without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerPlan:
    """The part of a run's configuration that the learner needs."""

    model_path: str
    kl_coef: float
    kl_reference: KLReference
    keep_teacher: bool  # the rule or the KL term uses the teacher
    longest_sequence: int = 0  # tokens of the longest prompt with its completion; 0: as long as a row
    digest: bool = False  # report a digest of the weights with each update
    export_dtype: Literal["float32", "bfloat16"] = "float32"  # of the weights in a checkpoint's model folder
    allow_unlisted: bool = False  # train an architecture outside of the table
    token_log: TokenLogPlan | None = None
    train: TrainSettings = field(default_factory=TrainSettings)
    learner: LearnerSettings = field(default_factory=LearnerSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    correction: CorrectionSettings = field(default_factory=CorrectionSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    # scheduled: from so many updates on, rising; each without `later` of its own
    later: tuple[tuple[int, LearnerPlan], ...] = ()

    def of_update(self, update: int) -> LearnerPlan:
        """The plan by which update 1, 2, ... is made."""
        found = self
        for start, plan in self.later:
            found = plan if start < update else found
        return found
