"""Reads a journal that may still be written: its frames from a place on, and single frames by their place."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from corewarding.learner.replay.journal.records import Record, from_bytes
from corewarding.learner.replay.journal.segments import MAGIC, JournalError, Position, number_of, read, segments

_FRAME = struct.Struct("<III")  # as in learner/replay/journal/segments.py
BEGIN = Position(0, 0)


def frames(folder: Path, begin: Position) -> Iterator[tuple[Position, Position, list[Record]]]:
    """(place, place after it, records) of every whole frame from `begin` on; a frame that is being written is left for later.

    JournalError for damage before the end of the journal.
    """
    files = [path for path in segments(folder) if number_of(path) >= begin.segment]
    for path in files:
        number = number_of(path)
        at = max(len(MAGIC), begin.offset if number == begin.segment else 0)
        with path.open("rb") as file:
            file.seek(at)
            while (payload := _payload(file)) is not None:
                after = at + _FRAME.size + len(payload)
                yield Position(number, at), Position(number, after), list(from_bytes(payload))
                at = after
            if at < os.fstat(file.fileno()).st_size and (path != files[-1] or _is_long_enough(file, at)):
                for _ in read(path, torn=[]):  # tells an unfinished end from damage
                    pass


def frame_at(folder: Path, place: Position) -> list[Record]:
    """The records of one frame. JournalError if it is not there any more."""
    path = folder / f"segment-{place.segment:06d}.cwj"
    if path.is_file():
        with path.open("rb") as file:
            file.seek(place.offset)
            if (payload := _payload(file)) is not None:
                return list(from_bytes(payload))
    raise JournalError(f"{path} does not hold the record at byte {place.offset} any more (journal.retain)")


def fingerprint(folder: Path, place: Position) -> str:
    """Names the segment of `place`: another journal's differs. Empty if there is none, or none that is so long."""
    path = folder / f"segment-{place.segment:06d}.cwj"
    if not path.is_file() or path.stat().st_size < place.offset:
        return ""
    with path.open("rb") as file:
        return f"{zlib.crc32(file.read(len(MAGIC) + _FRAME.size)):08x}"


def _payload(file: BinaryIO) -> bytes | None:
    """The frame that begins here; None if it is not whole."""
    header = file.read(_FRAME.size)
    if len(header) < _FRAME.size:
        return None
    length, checksum, own = _FRAME.unpack(header)
    if own != zlib.crc32(header[:8]):
        return None
    payload = file.read(length)
    return payload if len(payload) == length and zlib.crc32(payload) == checksum else None


def _is_long_enough(file: BinaryIO, at: int) -> bool:
    """Whether the file holds as many bytes as the frame at `at` says, so that it is damaged rather than unfinished."""
    file.seek(at)
    header = file.read(_FRAME.size)
    left = os.fstat(file.fileno()).st_size - at - _FRAME.size
    return len(header) == _FRAME.size and _FRAME.unpack(header)[0] <= left
