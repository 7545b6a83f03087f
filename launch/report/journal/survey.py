"""The starts of a run, from its journal, and which part of what an earlier start did was forgotten and made again.

A start that does not go on with the journal takes the counts of a moment in the past of the run, mostly of a checkpoint: what was
sampled after it is forgotten, and what waited then is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corewarding.dataflow.ids import AskedId
from corewarding.learner.replay.journal.journal import records
from corewarding.learner.replay.journal.records import Scored, Snapshot, Start
from corewarding.learner.replay.journal.segments import JournalError, Position, Torn
from corewarding.learner.replay.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """How far a run had come. All three only rise while a start and those that go on with it last."""

    generated: int  # completions that had arrived
    left: int  # completions that had left the buffer, without those lost at a start
    failed: int  # questions given up

    @classmethod
    def of(cls, ledger: Ledger) -> Moment:
        dropped = ledger.dropped.total() - ledger.dropped["lost_incarnation"]
        left = ledger.trained + ledger.voted_only + ledger.withheld + dropped
        return cls(generated=ledger.generated, left=left, failed=ledger.failed_questions)

    def is_after(self, other: Moment) -> bool:
        return self.generated > other.generated or self.left > other.left or self.failed > other.failed

    def or_earlier(self, other: Moment | None) -> Moment:
        """The earlier one of two moments of one past."""
        if other is None:
            return self
        return Moment(
            generated=min(self.generated, other.generated),
            left=min(self.left, other.left),
            failed=min(self.failed, other.failed),
        )


@dataclass(slots=True)
class Started:
    """A start of the run."""

    start: Start
    again: tuple[int, int] | None  # first and last update of earlier starts that it makes again


@dataclass(slots=True)
class Survey:
    """What the first reading of a journal finds."""

    starts: list[Started] = field(default_factory=list)
    begins: dict[Position, Moment] = field(
        default_factory=dict
    )  # snapshots of a state that does not come from the records before
    torn: list[Torn] = field(default_factory=list)

    def kept_until(self, begin: Position) -> Moment | None:
        """What the run remembers of what it did from `begin` on, and forgot at a later start; None if all."""
        kept: Moment | None = None
        for place, moment in self.begins.items():
            if place > begin:
                kept = moment.or_earlier(kept)
        return kept


def survey(folder: Path) -> Survey:
    """Reads the journal once. JournalError for damage."""
    found, last = Survey(), 0
    announced: Start | None = None
    for place, record in records(folder, torn=found.torn):
        match record:
            case Start():
                announced = record
                if record.goes_on and found.begins:
                    _see(found, record, last)
            case Snapshot(state=state):
                if announced is None:
                    raise JournalError(f"the journal in {folder} holds a snapshot without a start at {place}")
                if not found.starts or announced.start != found.starts[-1].start.start:
                    found.begins[place] = Moment.of(ledger_of(state))
                    _see(found, announced, last)
                    last = announced.updates
            case Scored(update=update):
                last = update
            case _:
                pass
    return found


def _see(found: Survey, start: Start, last: int) -> None:
    if not found.starts or found.starts[-1].start.start != start.start:
        again = (start.updates + 1, last) if not start.goes_on and last > start.updates else None
        found.starts.append(Started(start, again))


def ledger_of(state: dict[str, Any]) -> Ledger:
    """The counts in a snapshot. JournalError if they are no counts."""
    counts = state.get("ledger")
    names = ("generated", "trained", "voted_only", "withheld", "failed_questions")
    if isinstance(counts, dict) and isinstance(dropped := counts.get("dropped"), dict):
        values = [*(counts.get(name) for name in names), *dropped.values()]
        if all(isinstance(value, int) for value in values) and all(isinstance(reason, str) for reason in dropped):
            return Ledger.of(counts)
    raise JournalError("the journal holds a snapshot whose counts cannot be read")


def pending_of(state: dict[str, Any]) -> list[AskedId]:
    """The questions that had been admitted and had not left. JournalError if the snapshot does not say it."""
    admission = state.get("admission")
    entries = admission.get("outstanding") if isinstance(admission, dict) else None
    if not isinstance(entries, list):
        raise JournalError("the journal holds a snapshot without its questions")
    asked = [entry[0] if isinstance(entry, tuple | list) and entry else None for entry in entries]
    if not all(isinstance(one, AskedId) for one in asked):
        raise JournalError("the journal holds a snapshot whose questions cannot be read")
    return [one for one in asked if one is not None]
