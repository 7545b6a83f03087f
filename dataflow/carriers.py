"""Everything that travels, in the order in which it travels.

    Question → RolloutTask → Completion* → QuestionRollouts → ScoredGroup → TrainingSample → TrainBatch → StepResult → WeightManifest

A stage never fills in an earlier stage's object: it makes the next type. Arrays are numpy; a comment gives the axes and dtype of
each field. A carrier whose fields do not fit together raises DataError when it is made.
Axes: P prompt tokens, L completion tokens, G completions of a group.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from corewarding.dataflow.errors import DataError
from corewarding.dataflow.ids import AskedId, CompletionId, GroupId, Source, Version, View
from corewarding.dataflow.metrics import Metrics
from corewarding.dataflow.spans import Span
from corewarding.dataflow.votes import Vote

FinishReason = Literal["stop", "length"]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]

_TOKENS: dict[str, type[np.generic]] = {
    "prompt_token_ids": np.int32,
    "token_ids": np.int32,
    "behavior_logprobs": np.float32,
    "token_versions": np.int32,
}


def _make_arrays(carrier: object, **dtypes: type[np.generic]) -> None:
    """Turns the named fields of a frozen carrier into contiguous arrays with one axis."""
    for name, dtype in dtypes.items():
        array = np.ascontiguousarray(getattr(carrier, name), dtype=dtype)
        if array.ndim != 1:
            raise DataError(f"{name} must have one axis, got shape {array.shape}")
        object.__setattr__(carrier, name, array)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One problem in its wordings. It has no answer field: answers live in GoldAnswers, which label-free rules never get."""

    id: str
    original: str
    rephrased: str | None = None

    def wording(self, view: View) -> str:
        """The text asked under `view`. DataError if the question has no rephrased wording."""
        if view == "original":
            return self.original
        if self.rephrased is None:
            raise DataError(f"question {self.id} has no rephrased wording")
        return self.rephrased


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RolloutTask:
    """A request for one group: sample `group_size` completions of one prompt."""

    id: GroupId
    incarnation: int
    attempt: int  # how often the group was dispatched before; part of request ids, never of the seed
    group_size: int
    prompt_token_ids: Int32  # [P]
    temperature: float
    max_new_tokens: int
    run_seed: int

    def __post_init__(self) -> None:
        _make_arrays(self, prompt_token_ids=np.int32)
        if self.group_size < 1 or self.max_new_tokens < 1 or self.temperature < 0:
            raise DataError(f"task {self.id}: group_size and max_new_tokens must be at least 1, temperature at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Wall-clock seconds since the epoch."""

    submitted_s: float = 0.0
    started_s: float = 0.0
    finished_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Completion:
    """One sampled completion, tagged with where it belongs and which weights wrote each token."""

    id: CompletionId
    incarnation: int
    attempt: int
    prompt_token_ids: Int32  # [P]
    token_ids: Int32  # [L], the end-of-sequence token included when finish_reason is "stop"
    behavior_logprobs: Float32  # [L] of log_softmax(logits / temperature), under the weights that sampled each token
    token_versions: Int32  # [L] updates in those weights; rises where weights were swapped in flight
    temperature: float
    text: str  # decoded without special tokens
    answer: str | None  # extracted from text; None if there is no answer
    finish_reason: FinishReason
    actor_id: str
    timings: Timings = field(default_factory=Timings)

    def __post_init__(self) -> None:
        _make_arrays(self, **_TOKENS)
        lengths = [len(self.token_ids), len(self.behavior_logprobs), len(self.token_versions)]
        if len(set(lengths)) != 1:
            raise DataError(
                f"completion {self.id}: token_ids, behavior_logprobs and token_versions differ in length: "
                f"{', '.join(map(str, lengths))}"
            )
        if len(self.token_ids) == 0:
            raise DataError(f"completion {self.id} has no token; even an empty answer ends in an end-of-sequence token")
        if (self.token_versions[1:] < self.token_versions[:-1]).any():
            raise DataError(f"completion {self.id}: token_versions fall: {self.token_versions.tolist()}")

    @property
    def oldest_version(self) -> int:
        """Updates in the oldest weights that sampled one of its tokens."""
        return int(self.token_versions[0])

    @property
    def truncated(self) -> bool:
        """Whether it ended at the token limit."""
        return self.finish_reason == "length"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuestionRollouts:
    """All groups of one asked question: what a reward rule sees."""

    asked: AskedId
    groups: dict[GroupId, tuple[Completion, ...]]  # each sorted by sample_index

    def group(self, view: View, source: Source) -> tuple[Completion, ...]:
        """The completions of one group. KeyError if the rule does not ask for it."""
        return self.groups[self.asked.group(view, source)]

    @property
    def completions(self) -> list[Completion]:
        """The completions of all groups."""
        return [completion for group in self.groups.values() for completion in group]

    def oldest_version(self, source: Source) -> int | None:
        """Updates in the oldest weights that sampled a token of `source`; None if `source` has no group here."""
        versions = [c.oldest_version for c in self.completions if c.id.source == source]
        return min(versions) if versions else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredGroup:
    """One trained group with its rewards. The label is kept for the sample log and for diagnostics."""

    id: GroupId
    completions: tuple[Completion, ...]  # [G]
    rewards: Float32  # [G]
    label: str | None  # the pseudo-label (for ground_truth: the answer) that the rewards compare with
    vote: Vote | None
    abstained: bool
    advantages: Float32 | None = None  # [G] the rule's own; None: those of the rewards
    weights: Float32 | None = None  # [G] factors of the completions' loss, at least 0; None: 1
    offset: float = 0.0  # is added to every advantage

    def __post_init__(self) -> None:
        given = [name for name in ("rewards", "advantages", "weights") if getattr(self, name) is not None]
        _make_arrays(self, **dict.fromkeys(given, np.float32))
        for name in given:
            values = getattr(self, name)
            if len(values) != len(self.completions):
                raise DataError(f"group {self.id}: {len(values)} {name} for {len(self.completions)} completions")
            if name != "rewards" and not np.isfinite(values).all():
                raise DataError(f"group {self.id}: {name} must be finite, got {values.tolist()}")
        if self.weights is not None and (self.weights < 0).any():
            raise DataError(f"group {self.id}: weights must be at least 0, got {self.weights.tolist()}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingSample:
    """One trained completion as the learner sees it: tokens, advantage, behavior; no reward rule, no text."""

    id: CompletionId
    prompt_token_ids: Int32  # [P]
    token_ids: Int32  # [L]
    behavior_logprobs: Float32  # [L]
    token_versions: Int32  # [L]
    advantage: float
    loss_mask: NDArray[np.bool_]  # [L] tokens that enter gain and KL; all True unless masked by config
    temperature: float
    truncated: bool
    weight: float = 1.0  # factor of its gain and KL; the denominators do not see it

    def __post_init__(self) -> None:
        _make_arrays(self, **_TOKENS, loss_mask=np.bool_)
        if (
            len({len(self.token_ids), len(self.behavior_logprobs), len(self.token_versions), len(self.loss_mask)}) != 1
            or len(self.token_ids) == 0
            or len(self.prompt_token_ids) == 0
        ):
            raise DataError(f"sample {self.id} is ragged or empty")
        if not np.isfinite(self.advantage):
            raise DataError(f"sample {self.id}: advantage is {self.advantage}")
        if not 0 <= self.weight < np.inf:
            raise DataError(f"sample {self.id}: weight is {self.weight}")

    @classmethod
    def of(
        cls, completion: Completion, *, advantage: float, loss_mask: bool = True, weight: float = 1.0
    ) -> TrainingSample:
        """`completion` as a training sample. loss_mask: whether its tokens enter the loss."""
        return cls(
            id=completion.id,
            prompt_token_ids=completion.prompt_token_ids,
            token_ids=completion.token_ids,
            behavior_logprobs=completion.behavior_logprobs,
            token_versions=completion.token_versions,
            advantage=advantage,
            loss_mask=np.full(len(completion.token_ids), loss_mask, np.bool_),
            temperature=completion.temperature,
            truncated=completion.truncated,
            weight=weight,
        )

    @property
    def num_tokens(self) -> int:
        """Prompt and completion together."""
        return len(self.prompt_token_ids) + len(self.token_ids)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainBatch:
    """The samples of exactly one optimizer update, sorted by id."""

    incarnation: int
    update: int  # this batch makes update number `update` (1, 2, ...) out of weights `update - 1`
    samples: tuple[TrainingSample, ...]

    def __post_init__(self) -> None:
        ids = [sample.id for sample in self.samples]
        if ids != sorted(ids) or len(set(ids)) != len(ids):
            raise DataError(f"batch of update {self.update}: samples must be sorted by id and unique")

    @property
    def policy_version(self) -> int:
        """Updates in the weights this batch is applied to."""
        return self.update - 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenStatistics:
    """Whole-distribution statistics of one completion's loss tokens under the learner's current policy."""

    id: CompletionId
    self_certainty: float  # mean over loss tokens of KL(uniform || p_t)
    entropy: float  # mean over loss tokens of H(p_t)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepResult:
    """What the learner reports of one update."""

    version: Version  # of the weights after the update
    metrics: Metrics
    wall_s: float
    skipped: bool = False  # nothing to train on: counted, but no optimizer step
    digest: str = ""  # of the weights after the update, the teacher's included; empty if it was not asked for


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UpdateReport:
    """What the replay buffer reports of one update's batch."""

    update: int
    metrics: Metrics
    rows: list[dict[str, Any]]  # of the sample log, JSON-ready
    spans: tuple[Span, ...]  # when each of its groups was sampled, and by which actor


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferProgress:
    """How far the replay buffer has come since the start of the process: what the watchdog reads."""

    num_generated: int  # completions that arrived
    num_ready: int  # questions whose groups all arrived, also those that have left since
    updates_taken: int
    room: int  # questions that may start now
    num_missing: int  # admitted questions that are not ready
    missing: tuple[str, ...]  # the oldest few of them
    dropped: dict[str, int]  # completions by reason
    came_back: str = ""  # how the buffer's process came back from its journal; empty for the first one
