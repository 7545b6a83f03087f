"""A replay buffer from its journal: the newest whole snapshot, and every input since then once more.

The buffer is a function of its inputs and their order, so the same inputs make the same decisions; each batch is compared with the
checksum that was written when it was made.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from corewarding.dataflow.carriers import Completion, TokenStatistics
from corewarding.dataflow.codec import CodecError, decode_list
from corewarding.dataflow.ids import AskedId
from corewarding.dataflow.votes import InitialAnswers
from corewarding.learner.replay.buffer import ReplayBuffer
from corewarding.learner.replay.journal.decisions import is_batch
from corewarding.learner.replay.journal.journal import records, records_of
from corewarding.learner.replay.journal.records import (
    Acknowledged,
    Admitted,
    Arrived,
    GivenUp,
    Held,
    Initial,
    Record,
    Reported,
    Scored,
    Snapshot,
    Start,
    Statistics,
    Taken,
)
from corewarding.learner.replay.journal.segments import JournalError, Torn, number_of, segments
from corewarding.learner.replay.scoring import BufferPlan
from corewarding.questions.gold import GoldAnswers

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Recovered:
    """What a journal gave."""

    buffer: ReplayBuffer
    cursor: dict[str, Any]  # of the questions, at some moment
    admitted: list[AskedId]  # since that moment
    last_call: tuple[int, int] | None  # number of the newest `admit`, and its answer
    num_records: int = 0
    seconds: float = 0.0
    torn: list[Torn] = field(default_factory=list)

    def words(self) -> str:
        """One sentence for people."""
        cut = "".join(f", {one.cut} bytes of an unfinished record cut off" for one in self.torn)
        return f"{self.num_records} records read in {self.seconds:.1f} s{cut}"


def newest_start(folder: Path) -> Start | None:
    """The last start that the journal knows; None if it knows none. Each start begins a segment."""
    for segment in reversed(segments(folder)):
        record = next((record for _, record in records_of(segment, [])), None)
        if isinstance(record, Start):
            return record
    return None


def recover(folder: Path, plan: BufferPlan, gold: GoldAnswers, *, report_again: bool = False) -> Recovered:
    """The buffer as it was when the last record was written. JournalError if the journal does not give it.

    Torn tails are cut off the files. report_again: it can report of all updates since its snapshot, also of those it had reported.
    """
    began, torn = time.monotonic(), list[Torn]()
    first, state, held = _newest_snapshot(folder)
    with _fitting(f"the snapshot in segment {first}"):
        buffer = ReplayBuffer.restored(plan, gold, state, held)
        found = Recovered(
            buffer=buffer,
            cursor=state["cursor"],
            admitted=list(state["admitted"]),
            last_call=state["last_call"],
            torn=torn,
        )
    for place, record in records(folder, first=first, torn=torn):
        found.num_records += 1
        if not (report_again and isinstance(record, Reported)):
            with _fitting(f"the record at {place}"):
                _repeat(record, found)
    for one in torn:
        with one.path.open("r+b") as file:
            file.truncate(one.whole)
    found.seconds = time.monotonic() - began
    return found


@contextlib.contextmanager
def _fitting(what: str) -> Iterator[None]:
    """JournalError where a record, though whole, is none that this buffer can have written at this place."""
    try:
        yield
    except JournalError:
        raise
    except (AssertionError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise JournalError(
            f"{what} of the journal does not fit what is before it ({type(error).__name__}: {error}); it was written by another "
            "version, or files are missing"
        ) from error


def _newest_snapshot(folder: Path) -> tuple[int, dict[str, Any], list[list[Completion]]]:
    """(its segment, the state, the groups held) of the newest snapshot that is whole."""
    for segment in reversed(segments(folder)):
        stream = (record for _, record in records_of(segment, []))
        if not isinstance(next(stream, None), Start) or not isinstance(record := next(stream, None), Snapshot):
            continue
        held = []
        for _ in range(record.num_held):
            group = next(stream, None)
            if not isinstance(group, Held):
                break
            held.append(_decoded(group.completions, Completion))
        else:
            return number_of(segment), record.state, held
    raise JournalError(f"the journal in {folder} has no whole snapshot of the replay buffer")


def _repeat(record: Record, found: Recovered) -> None:
    """One input once more. Decisions are made again by the buffer itself."""
    buffer = found.buffer
    match record:
        case Initial(answers=answers):
            buffer.know_initial(_decoded(answers, InitialAnswers))
        case Admitted(call=call, asked=asked):
            if at_once(buffer.admit(asked)) != len(asked):
                raise JournalError(f"the journal admits {len(asked)} questions for which there is no room")
            found.last_call = call, len(asked)
            found.admitted += asked
        case Acknowledged(channel=channel, updates=updates):
            at_once(buffer.acknowledged(channel, updates))
        case Arrived(completions=completions):
            at_once(buffer.accept(_decoded(completions, Completion)))
        case GivenUp(asked=one):
            at_once(buffer.give_up(one))
        case Taken(update=update, asked=asked):
            at_once(buffer.take(update))
            if buffer.taken(update) != asked:
                raise JournalError(f"update {update} takes other questions than the journal says")
            if not buffer.needs_statistics:
                buffer.batch(update)
        case Statistics(update=update, statistics=statistics):
            buffer.batch(update, _decoded(statistics, TokenStatistics))
        case Reported(update=update):
            buffer.report(update)
        case Scored(update=update, sha256=expected):
            if not is_batch(buffer.batch(update), expected):
                raise JournalError(
                    f"the batch of update {update} is another one than the journal says ({expected[:12]}): the reward rule "
                    "or its settings have changed since"
                )
        case _:
            pass  # a decision or a fact, or a snapshot that is older or not whole


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits. JournalError if it would."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise JournalError("an input of the journal waits for another one, which the journal does not have")


def _decoded(message: bytes, carrier: type[T]) -> list[T]:
    try:
        return decode_list(message, carrier)
    except CodecError as error:
        raise JournalError(f"the journal holds a message that cannot be read: {error}") from error
