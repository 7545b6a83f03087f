"""What happens to completions in the replay buffer. Every accept, refusal, eviction and scored update is one event, and every event
passes once through `ReplayBuffer.record`, which hands it to the ledger and to the length statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from corewarding.dataflow.carriers import Completion, QuestionRollouts, ScoredGroup, TrainBatch, TrainingSample
from corewarding.dataflow.ids import AskedId
from corewarding.learner.replay.admission import StaleReason

RefusalReason = Literal["duplicate", "unasked", "lost_incarnation"]
DropReason = Literal[RefusalReason, StaleReason, "zero_advantage", "failed_task"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupAccepted:
    """A group arrived and waits for its question to be ready."""

    completions: Sequence[Completion]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupRefused:
    """A group arrived that no question waits for."""

    reason: RefusalReason
    completions: Sequence[Completion]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuestionEvicted:
    """A ready question passed a deadline and left."""

    asked: AskedId
    reason: StaleReason
    completions: Sequence[Completion]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuestionFailed:
    """A question left because one of its tasks fails wherever it runs."""

    asked: AskedId
    completions: Sequence[Completion]  # of its groups that had arrived


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UpdateScored:
    """The questions selected for an update were scored and left as training samples."""

    batch: TrainBatch
    rollouts: Sequence[QuestionRollouts]  # the selected questions, in the order of admission
    groups: Sequence[ScoredGroup]  # their trained groups
    trained: Sequence[TrainingSample]  # samples with tokens in the loss
    withheld: Sequence[TrainingSample]  # samples whose tokens are all masked

    @property
    def update(self) -> int:
        return self.batch.update

    @property
    def num_skipped(self) -> int:
        """Completions of trained groups that `loss.skip_zero_advantage` left out."""
        return self._num_in_trained_groups - len(self.trained) - len(self.withheld)

    @property
    def num_voted_only(self) -> int:
        """Completions of groups that are not trained."""
        return sum(len(rollouts.completions) for rollouts in self.rollouts) - self._num_in_trained_groups

    @property
    def _num_in_trained_groups(self) -> int:
        return sum(len(group.completions) for group in self.groups)


Event: TypeAlias = GroupAccepted | GroupRefused | QuestionEvicted | QuestionFailed | UpdateScored
