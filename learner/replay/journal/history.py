"""What became of a run, from its journal: the batch of every update that counts, exactly as the learner got it.

A start that does not go on with the journal makes the updates after its own again, so those of earlier starts no longer count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from corewarding.dataflow.carriers import Completion, QuestionRollouts, TrainBatch, TrainingSample
from corewarding.dataflow.codec import CodecError, decode_list
from corewarding.dataflow.errors import DataError
from corewarding.dataflow.ids import AskedId, CompletionId, GroupId
from corewarding.learner.replay.journal.decisions import is_batch
from corewarding.learner.replay.journal.journal import records
from corewarding.learner.replay.journal.records import (
    Arrived,
    Evicted,
    GivenUp,
    Held,
    Record,
    Refused,
    Scored,
    Snapshot,
    Start,
    Updated,
)
from corewarding.learner.replay.journal.segments import JournalError, Position

Groups: TypeAlias = dict[AskedId, dict[GroupId, tuple[Completion, ...]]]


@dataclass(frozen=True, slots=True)
class Made:
    """An update that counts."""

    update: int
    at: Position  # of its record Scored
    digest: str  # of the weights after it; empty if the run ended before the learner had made it


@dataclass(frozen=True, slots=True, kw_only=True)
class PastUpdate:
    """One update as it was made."""

    batch: TrainBatch
    rollouts: list[QuestionRollouts]  # its questions, in the order of admission
    scored: Scored


@dataclass(slots=True)
class History:
    """The updates that count, and the starts, in order."""

    folder: Path
    starts: list[Start] = field(default_factory=list)
    made: dict[int, Made] = field(default_factory=dict)  # by update
    done: int = 0  # updates at the newest snapshot

    @classmethod
    def of(cls, folder: Path) -> History:
        """Reads the journal once. JournalError if there is none, or for damage; an unfinished record at the end is left out."""
        history = cls(folder)
        for place, record in records(folder):
            history._see(place, record)
        if not history.starts:
            raise JournalError(f"{folder} holds no journal (journal.retain was off, or nothing was started)")
        return history

    def _see(self, place: Position, record: Record) -> None:
        match record:
            case Start() if not self.starts or record.start != self.starts[-1].start:
                self.starts.append(record)
                if not record.goes_on:
                    self.made = {update: made for update, made in self.made.items() if update <= record.updates}
            case Snapshot(state=state):
                self.done = updates_of(state)
            case Scored(update=update):
                self.made[update] = Made(update, place, "")
            case Updated(update=update, digest=digest) if update in self.made:
                self.made[update] = Made(update, self.made[update].at, digest)
            case _:
                pass

    @property
    def first(self) -> int:
        """The first update that the journal holds."""
        return min(self.made, default=self.done + 1)

    @property
    def last(self) -> int:
        """The last update that the buffer gave the learner."""
        return max([self.done, *self.made])

    def updates(self, after: int, *, until: int | None = None) -> Iterator[PastUpdate]:
        """The updates `after` + 1, ... up to `until` or the last one, in order; the completions of questions that wait are in memory.
        JournalError if one of them is missing or is not what the journal says."""
        last = self.last if until is None else until
        wanted = {made.at for made in self.made.values() if after < made.update <= last}
        expected = after + 1
        for past in _updates(self.folder, wanted):
            if past.batch.update != expected:
                break
            yield past
            expected += 1
        if expected <= last:
            raise JournalError(
                f"the journal in {self.folder} does not hold update {expected}: it was kept from a later checkpoint on "
                "(journal.retain), or files are missing"
            )


def updates_of(state: dict[str, Any]) -> int:
    admission = state.get("admission")
    done = admission.get("updates_done") if isinstance(admission, dict) else None
    if not isinstance(done, int):
        raise JournalError("the journal holds a snapshot without a number of updates")
    return done


def _updates(folder: Path, wanted: set[Position]) -> Iterator[PastUpdate]:
    groups: Groups = defaultdict(dict)
    arrived: GroupId | None = None
    before: tuple[Completion, ...] | None = None  # what `arrived` replaced
    start = ""
    for place, record in records(folder):
        match record:
            case Start() if record.start != start:
                start = record.start
                if not record.goes_on:
                    groups.clear()
            case Arrived(completions=message) | Held(completions=message):
                group = group_of(message)
                arrived = group[0].id.group
                before = groups[arrived.asked].get(arrived)
                groups[arrived.asked][arrived] = group
            case Refused() if arrived is not None:
                groups[arrived.asked].pop(arrived, None)
                if before is not None:
                    groups[arrived.asked][arrived] = before
                elif not groups[arrived.asked]:
                    del groups[arrived.asked]
            case Evicted(asked=asked) | GivenUp(asked=asked):
                groups.pop(asked, None)
            case Scored() if place in wanted:
                asked_ids = dict.fromkeys(group.asked for group in record.groups)
                rollouts = [QuestionRollouts(asked=asked, groups=dict(groups[asked])) for asked in asked_ids]
                yield PastUpdate(batch=_batch(record, groups), rollouts=rollouts, scored=record)
            case _:
                pass
        if isinstance(record, Scored):
            for trained in record.groups:
                groups.pop(trained.asked, None)


def group_of(message: bytes) -> tuple[Completion, ...]:
    """The completions of one group, sorted. JournalError if the message is something else."""
    try:
        group = tuple(sorted(decode_list(message, Completion), key=lambda one: one.id.sample_index))
    except CodecError as error:
        raise JournalError(f"the journal holds completions that cannot be read: {error}") from error
    if [one.id for one in group] != [group[0].id.group.completion(index) for index in range(len(group))] or not group:
        raise JournalError("the journal holds a message that is not one group")
    return group


def _batch(scored: Scored, groups: Groups) -> TrainBatch:
    try:
        samples = tuple(
            TrainingSample.of(
                _held(name, scored, groups), advantage=float(advantage), loss_mask=bool(in_loss), weight=float(weight)
            )
            for name, advantage, weight, in_loss in zip(
                scored.samples, scored.advantages, scored.weights, scored.in_loss, strict=True
            )
        )
        batch = TrainBatch(incarnation=scored.incarnation, update=scored.update, samples=samples)
    except DataError as error:
        raise JournalError(f"the journal's update {scored.update} is no batch: {error}") from error
    if not is_batch(batch, scored.sha256):
        raise JournalError(
            f"the batch of update {scored.update} from the journal is not the one that was trained, {scored.sha256[:12]}"
        )
    return batch


def _held(name: CompletionId, scored: Scored, groups: Groups) -> Completion:
    group = groups[name.group.asked].get(name.group, ())
    if not 0 <= name.sample_index < len(group):
        raise JournalError(f"the journal trains {name} in update {scored.update} and does not hold it")
    return group[name.sample_index]
