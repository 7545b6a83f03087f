"""Reads a journal that may still be written: its frames from a place on, and single frames by their place."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from corewarding.learner.replay.journal.records import Record, from_bytes
from corewarding.learner.replay.journal.segments import (
    FRAME,
    MAGIC,
    JournalError,
    Position,
    is_tail,
    number_of,
    payload_here,
    segments,
)

BEGIN = Position(0, 0)


def frames(folder: Path, begin: Position) -> Iterator[tuple[Position, Position, list[Record]]]:
    """(place, place after it, records) of every whole frame from `begin` on; a frame that is being written is left for later.

    JournalError for damage before the end of the journal.
    """
    for path in segments(folder):
        if (number := number_of(path)) < begin.segment:
            continue
        at = max(len(MAGIC), begin.offset if number == begin.segment else 0)
        with path.open("rb") as file:
            file.seek(at)
            while (payload := payload_here(file, os.fstat(file.fileno()).st_size - at)) is not None:
                after = at + FRAME.size + len(payload)
                yield Position(number, at), Position(number, after), list(from_bytes(payload))
                at = after
            size = os.fstat(file.fileno()).st_size
            if at < size and not is_tail(file, at, size):
                raise JournalError(f"{path} is damaged at byte {at}: a record does not fit its checksum")


def frame_at(folder: Path, place: Position) -> list[Record]:
    """The records of one frame. JournalError if it is not there any more."""
    path = folder / f"segment-{place.segment:06d}.cwj"
    if path.is_file():
        with path.open("rb") as file:
            file.seek(place.offset)
            if (payload := payload_here(file, os.fstat(file.fileno()).st_size - place.offset)) is not None:
                return list(from_bytes(payload))
    raise JournalError(f"{path} does not hold the record at byte {place.offset} any more (journal.retain)")


def fingerprint(folder: Path, place: Position) -> str:
    """Names the segment of `place`: another journal's differs. Empty if there is none, or none that is so long."""
    path = folder / f"segment-{place.segment:06d}.cwj"
    if not path.is_file() or path.stat().st_size < place.offset:
        return ""
    with path.open("rb") as file:
        return f"{zlib.crc32(file.read(len(MAGIC) + FRAME.size)):08x}"
