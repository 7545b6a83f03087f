"""What became of every completion of a run, in the order in which they left the buffer, from its journal.

In memory are only the questions that wait. The counts are those of the buffer's own ledger: each snapshot in the journal is compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corewarding.dataflow.carriers import Completion
from corewarding.dataflow.ids import AskedId
from corewarding.launch.report.journal.departures import Departure, Groups, Left, Sampled
from corewarding.launch.report.journal.scores import Scores, chief, reason_of
from corewarding.launch.report.journal.survey import Moment, Survey, ledger_of, pending_of
from corewarding.learner.replay.events import DropReason
from corewarding.learner.replay.journal.history import group_of, updates_of
from corewarding.learner.replay.journal.journal import records
from corewarding.learner.replay.journal.records import (
    Admitted,
    Arrived,
    Evicted,
    GivenUp,
    Held,
    Record,
    Refused,
    Scored,
    Snapshot,
    Taken,
)
from corewarding.learner.replay.journal.segments import JournalError, Position, Torn
from corewarding.learner.replay.ledger import Ledger


class Fates:
    """Reads a journal once more, after its survey."""

    def __init__(self, folder: Path, survey: Survey) -> None:
        self.ledger = Ledger()
        self.num_listed = 0  # completions that count and were yielded
        self._folder, self._survey = folder, survey
        self._waiting: dict[AskedId, Groups] = {}
        self._taken: dict[int, tuple[AskedId, ...]] = {}  # by update, until it is scored
        self._next = 1  # update to be taken
        self._complete_for: dict[
            AskedId, int
        ] = {}  # of those that wait: the update to be taken when their newest group arrived
        self._kept: Moment | None = None
        self._num_held = 0  # groups that follow a snapshot from which the counting begins

    def __iter__(self) -> Iterator[Departure]:
        """JournalError for damage."""
        torn: list[Torn] = []
        for place, frame in groupby(records(self._folder, torn=torn), key=itemgetter(0)):
            yield from self._see(place, [record for _, record in frame])
        yield from self._end()

    @property
    def num_waiting(self) -> int:
        return sum(len(group) for groups in self._waiting.values() for group in groups.values())

    def _see(self, place: Position, frame: list[Record]) -> Iterator[Departure]:
        """The records of one frame."""
        for record in frame:
            match record:
                case Snapshot():
                    yield from self._snapshot(place, record)
                case Held(completions=message) if self._num_held:
                    self._num_held -= 1
                    self._arrive(group_of(message))
                case Admitted(asked=asked):
                    self._waiting |= {one: {} for one in asked if one not in self._waiting}
                case Arrived(completions=message):
                    group = group_of(message)
                    self.ledger.generated += len(group)
                    refused = next((other for other in frame if isinstance(other, Refused)), None)
                    if refused is None:
                        self._arrive(group)
                    else:
                        sampled = {group[0].id.group: self._sampled(group)}
                        yield self._drop(group[0].id.group.asked, sampled, refused.reason, is_refused=True)
                case GivenUp(asked=one):
                    self.ledger.failed_questions += 1
                    self._complete_for.pop(one, None)
                    yield self._drop(one, self._waiting.pop(one, {}), "failed_task")
                case Evicted(asked=one, reason=stale):
                    yield self._drop(one, self._leave(one), stale)
                case Taken(update=update, asked=asked):
                    self._taken[update], self._next = asked, update + 1
                case Scored():
                    yield from self._scored(record)
                case _:
                    pass

    # ---- snapshots --------------------------------------------------------------------------------------------------

    def _snapshot(self, place: Position, snapshot: Snapshot) -> Iterator[Departure]:
        begin = self._survey.begins.get(place)
        counts = ledger_of(snapshot.state)
        if begin is None:
            if _counts(counts) != _counts(self.ledger):
                raise JournalError(
                    f"the journal in {self._folder} lacks records before {place}: they give {_counts(self.ledger)}, and "
                    f"the snapshot there says {_counts(counts)}; restore the files that are missing"
                )
            return
        yield from self._end()
        self._waiting = {asked: {} for asked in pending_of(snapshot.state)}
        self._taken, self._complete_for = {}, {}
        self._next = updates_of(snapshot.state) + 1
        self.ledger = counts
        self._kept = self._survey.kept_until(place)
        self._num_held = snapshot.num_held

    def _end(self) -> Iterator[Departure]:
        """What waits stays so, or is lost if a later start did not go on with it."""
        for asked, groups in self._waiting.items():
            left = [Left(completion=one, fate="waiting") for group in groups.values() for one in group]
            if self._kept is not None:
                left = [
                    replace(one, made_again=True)
                    if one.completion.number > self._kept.generated
                    else Left(completion=one.completion, fate="dropped", reason="lost_incarnation")
                    for one in left
                ]
            self.num_listed += sum(not one.made_again for one in left)
            yield Departure(asked=asked, fate="waiting", left=tuple(left), made_again=self._kept is not None)

    # ---- completions ------------------------------------------------------------------------------------------------

    def _arrive(self, group: Sequence[Completion]) -> None:
        name = group[0].id.group
        if name in (groups := self._waiting.setdefault(name.asked, {})):
            raise JournalError(f"the journal in {self._folder} takes in {name} twice")
        groups[name] = self._sampled(group)
        self._complete_for[name.asked] = self._next

    def _sampled(self, group: Sequence[Completion]) -> tuple[Sampled, ...]:
        return tuple(
            Sampled(
                id=one.id,
                number=self.ledger.generated,
                versions=(one.oldest_version, int(one.token_versions[-1])),
                num_tokens=len(one.token_ids),
                tokens=hashlib.sha256(one.token_ids.tobytes()).digest()[:16],
                swaps=_swaps(one.token_versions),
                answer=one.answer,
                actor=one.actor_id,
            )
            for one in group
        )

    def _leave(self, asked: AskedId) -> Groups:
        if asked not in self._waiting:
            raise JournalError(f"the journal in {self._folder} lets {asked} leave, which it does not hold")
        self._complete_for.pop(asked, None)
        return self._waiting.pop(asked)

    def _drop(self, asked: AskedId, groups: Groups, reason: DropReason, *, is_refused: bool = False) -> Departure:
        left = [Left(completion=one, fate="dropped", reason=reason) for group in groups.values() for one in group]
        self.ledger.dropped[reason] += len(left)
        return self._departure(
            Departure(asked=asked, fate="dropped", left=tuple(left), reason=reason, is_refused=is_refused)
        )

    def _scored(self, scored: Scored) -> Iterator[Departure]:
        if scored.update not in self._taken:
            raise JournalError(f"the journal in {self._folder} scores update {scored.update}, which was not taken")
        scores = Scores(scored)
        found: list[Departure] = []
        for asked in self._taken.pop(scored.update):
            complete_for = self._complete_for.get(asked)
            left = [one for name, group in self._leave(asked).items() for one in scores.of(name, group)]
            found.append(
                Departure(
                    asked=asked,
                    fate=chief(left),
                    reason=reason_of(left),
                    update=scored.update,
                    complete_for=complete_for,
                    left=tuple(left),
                )
            )
        for one in (one for departure in found for one in departure.left):
            self.ledger.trained += one.fate == "trained"
            self.ledger.withheld += one.fate == "withheld"
            self.ledger.voted_only += one.fate == "voted"
            if one.reason is not None:
                self.ledger.dropped[one.reason] += 1
        scores.refuse_others(self._folder)
        yield from map(self._departure, found)

    def _departure(self, departure: Departure) -> Departure:
        """With what of it counts."""
        kept, left = self._kept, list[Left]()
        is_forgotten = kept is not None and Moment.of(self.ledger).is_after(kept)
        for one in departure.left:
            left.append(replace(one, made_again=is_forgotten))
            if kept is not None and is_forgotten and one.completion.number <= kept.generated:
                left.append(Left(completion=one.completion, fate="dropped", reason="lost_incarnation"))
        self.num_listed += sum(not one.made_again for one in left)
        return replace(departure, left=tuple(left), made_again=is_forgotten)


def _swaps(versions: NDArray[np.int32]) -> tuple[tuple[int, int], ...]:
    begins = [0, *(np.flatnonzero(np.diff(versions)) + 1).tolist()]
    return tuple((begin, int(versions[begin])) for begin in begins)


def _counts(ledger: Ledger) -> dict[str, int]:
    dropped = {str(reason): num for reason, num in sorted(ledger.dropped.items()) if num}
    return {
        "generated": ledger.generated,
        "trained": ledger.trained,
        "voted": ledger.voted_only,
        "withheld": ledger.withheld,
    } | dropped
