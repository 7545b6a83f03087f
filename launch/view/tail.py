"""Reads a journal that may still be written: its frames from a place on, and single frames by their place."""

from __future__ import annotations

import os
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


def frames(journal: Path, begin: Position) -> Iterator[tuple[Position, Position, list[Record]]]:
    """(place, place after it, records) of every whole frame from `begin` on, as `payloads`."""
    for place, after, payload in payloads(journal, begin):
        yield place, after, list(from_bytes(payload))


def frame_at(journal: Path, place: Position) -> list[Record]:
    """The records of one frame. JournalError if it is not there any more."""
    return list(from_bytes(payload_at(journal, place)))


def payloads(folder: Path, begin: Position) -> Iterator[tuple[Position, Position, bytes]]:
    """(place, place after it, payload) of every whole frame from `begin` on; a frame that is being written is left for later.

    JournalError for damage before the end.
    """
    for path in segments(folder):
        if (number := number_of(path)) < begin.segment:
            continue
        at = max(len(MAGIC), begin.offset if number == begin.segment else 0)
        with path.open("rb") as file:
            file.seek(at)
            while (payload := payload_here(file, os.fstat(file.fileno()).st_size - at)) is not None:
                after = at + FRAME.size + len(payload)
                yield Position(number, at), Position(number, after), payload
                at = after
            size = os.fstat(file.fileno()).st_size
            if at < size and not is_tail(file, at, size):
                raise JournalError(f"{path} is damaged at byte {at}: a record does not fit its checksum")


def payload_at(folder: Path, place: Position) -> bytes:
    """The payload of one frame. JournalError if it is not there any more."""
    path = folder / f"segment-{place.segment:06d}.cwj"
    if path.is_file():
        with path.open("rb") as file:
            file.seek(place.offset)
            if (payload := payload_here(file, os.fstat(file.fileno()).st_size - place.offset)) is not None:
                return payload
    raise JournalError(f"{path} does not hold the record at byte {place.offset} any more (journal.retain)")


def fingerprint(folder: Path, place: Position) -> str:
    """Names the segment of `place` by the header of its first record: another journal's differs. Empty if there is none, or if it
    ends before the place."""
    path = folder / f"segment-{place.segment:06d}.cwj"
    if not path.is_file() or path.stat().st_size < place.offset:
        return ""
    with path.open("rb") as file:
        file.seek(len(MAGIC))
        return file.read(FRAME.size).hex()
