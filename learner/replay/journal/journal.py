"""The journal that a replay buffer writes: records, snapshots, and how much of the past is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corewarding.dataflow.carriers import Completion
from corewarding.dataflow.codec import encode
from corewarding.learner.replay.journal.records import Held, Record, Snapshot, Start, from_bytes, to_bytes
from corewarding.learner.replay.journal.segments import (
    SEGMENT_BYTES,
    Position,
    SegmentWriter,
    Torn,
    flush_all,
    number_of,
    read,
    segments,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalPlan:
    """Where a start of the run keeps its journal, and what the journal says of it."""

    folder: Path
    start: Start
    cursor: dict[str, Any]  # of the questions, at the start
    segment_bytes: int = SEGMENT_BYTES


class Journal:
    """Appends records. JournalWriteError if the disk does not take them."""

    def __init__(self, plan: JournalPlan) -> None:
        self._writer = SegmentWriter(plan.folder, segment_bytes=plan.segment_bytes)
        self._start = plan.start

    def append(self, *entry: Record) -> None:
        """The records, which belong together, are in the hands of the operating system when this returns."""
        self._writer.append(to_bytes(entry))

    def snapshot(self, state: dict[str, Any], groups: Sequence[Sequence[Completion]]) -> int:
        """Begins a segment with the whole state of the buffer; returns the segment's number."""
        segment = self._writer.rotate()
        self.append(self._start)
        self.append(Snapshot(state=state, num_held=len(groups)))
        for group in groups:
            self.append(Held(completions=encode(list(group))))
        return segment

    async def sync(self) -> None:
        """Returns when everything so far is on the disk. More may be appended meanwhile."""
        await asyncio.to_thread(flush_all, self._writer.unflushed(), self._writer.folder)

    def keep_from(self, segment: int) -> None:
        """Removes what is older than the snapshot that begins this segment."""
        self._writer.remove_before(segment)

    def close(self) -> None:
        self._writer.close()


def records(folder: Path, *, first: int = 0, torn: list[Torn] | None = None) -> Iterator[tuple[Position, Record]]:
    """All records of a journal from segment `first` on, one in memory at a time. JournalError for damage.

    torn: takes the unfinished records at the ends of segments, which a process leaves that dies while it writes.
    """
    found: list[Torn] = [] if torn is None else torn
    for segment in segments(folder):
        if number_of(segment) >= first:
            yield from records_of(segment, found)


def records_of(segment: Path, torn: list[Torn]) -> Iterator[tuple[Position, Record]]:
    """The records of one segment."""
    for place, payload in read(segment, torn=torn):
        for record in from_bytes(payload):
            yield place, record
