"""The files of a journal: numbered segments of framed, checksummed records.

    journal/segment-000001.cwj = the line MAGIC, then records
    record = length (u32), CRC-32 of the payload (u32), CRC-32 of these 8 bytes (u32), payload

A record is in the hands of the operating system when `append` returns, so it survives the death of the process, and on the disk after
`flush_all`. A process that dies while it appends leaves a torn tail, which the next writer cuts off. Every other damage is named.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from corewarding.dataflow.errors import RunError, UserError

MAGIC = b"corewarding journal 1\n"
SEGMENT_BYTES = 256 * 2**20
"""A segment that has reached this size is followed by another."""
MAX_RECORD_BYTES = 2**30
FRAME = struct.Struct("<III")
"""Before each payload: its length, its checksum, and the checksum of these two."""
_NAME = re.compile(r"segment-(\d{6,})\.cwj")


class JournalError(UserError):
    """A journal cannot be read: no journal, or damaged. The message names the file, the place and the remedy."""


class JournalWriteError(RunError):
    """A record could not be written. All records before it are whole."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a record begins."""

    segment: int
    offset: int

    def __str__(self) -> str:
        return f"byte {self.offset} of segment {self.segment}"


@dataclass(frozen=True, slots=True)
class Torn:
    """An unfinished record at the end of a segment."""

    path: Path
    whole: int  # bytes before it
    cut: int  # bytes of it


def segments(folder: Path) -> list[Path]:
    """The segments in `folder`, in order."""
    found = [path for path in folder.glob("segment-*.cwj") if _NAME.fullmatch(path.name) and not path.is_symlink()]
    return sorted(found, key=number_of)


def number_of(segment: Path) -> int:
    """The number in a segment's name."""
    match = _NAME.fullmatch(segment.name)
    assert match is not None, f"{segment} is no segment"
    return int(match[1])


def read(segment: Path, *, torn: list[Torn] | None = None) -> Iterator[tuple[Position, bytes]]:
    """The payloads of a segment with their places, one in memory at a time. JournalError for damage.

    torn: takes the unfinished record at the end, if there is one; None refuses it as damage.
    """
    with segment.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        at = len(MAGIC)
        if (begin := file.read(at)) != MAGIC:
            if not MAGIC.startswith(begin):
                raise JournalError(f"{segment} is no journal of this program, or one of another version")
            _end_torn(segment, 0, size, torn)
            return
        while at < size:
            payload = payload_here(file, size - at)
            if payload is None:
                if not is_tail(file, at, size):
                    raise JournalError(f"{segment} is damaged at byte {at}: a record does not fit its checksum")
                _end_torn(segment, at, size, torn)
                return
            yield Position(number_of(segment), at), payload
            at += FRAME.size + len(payload)


def payload_here(file: BinaryIO, left: int) -> bytes | None:
    """The record that begins here; None if it is not whole. left: bytes to the end of the file; no more memory is taken."""
    frame = _frame(file.read(FRAME.size))
    if frame is None or frame[0] > left - FRAME.size:
        return None
    payload = file.read(frame[0])
    return payload if zlib.crc32(payload) == frame[1] else None


def _frame(header: bytes) -> tuple[int, int] | None:
    """Length and checksum of the payload; None if that is not what is written here."""
    if len(header) < FRAME.size:
        return None
    length, checksum, own = FRAME.unpack(header)
    return (length, checksum) if own == zlib.crc32(header[:8]) and 0 < length <= MAX_RECORD_BYTES else None


def is_tail(file: BinaryIO, at: int, size: int) -> bool:
    """Whether the record that is not whole is the last one: it reaches to the end or beyond it, or only zeros follow."""
    file.seek(at)
    header = file.read(FRAME.size)
    if len(header) < FRAME.size:
        return True
    if (frame := _frame(header)) is not None:
        return at + FRAME.size + frame[0] >= size
    file.seek(at)
    return not any(block.strip(b"\0") for block in iter(lambda: file.read(2**20), b""))


def _end_torn(segment: Path, whole: int, size: int, torn: list[Torn] | None) -> None:
    if torn is None:
        raise JournalError(f"{segment} ends in an unfinished record at byte {whole}")
    torn.append(Torn(segment, whole, size - whole))


class SegmentWriter:
    """Appends to a new segment after all that exist. One writer at a time: the run's lock sees to that."""

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder, self._segment_bytes = folder, segment_bytes
        folder.mkdir(parents=True, exist_ok=True)
        existing = segments(folder)
        self._number = number_of(existing[-1]) if existing else 0
        self._file: int | None = None
        self._full: list[int] = []  # descriptors of the segments before it
        self._size = 0
        self.rotate()

    def append(self, payload: bytes) -> Position:
        """Writes one record. JournalWriteError if the operating system does not take it; then nothing of it stays."""
        assert 0 < len(payload) <= MAX_RECORD_BYTES, f"a record of {len(payload)} bytes"
        if self._size >= self._segment_bytes:
            self.rotate()
        place = Position(self._number, self._size)
        header = struct.pack("<II", len(payload), zlib.crc32(payload))
        self._write(header + struct.pack("<I", zlib.crc32(header)), payload)
        return place

    def rotate(self) -> int:
        """Starts a new segment, unless this one is empty; returns its number."""
        if self._file is not None:
            if self._size == len(MAGIC):
                return self._number
            self._full.append(self._file)
            self._file = None
        self._number += 1
        path = self.folder / f"segment-{self._number:06d}.cwj"
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            self._size = 0
            self._write(MAGIC)
        except OSError as error:
            raise JournalWriteError(_refused(path, error)) from error
        return self._number

    def unflushed(self) -> list[int]:
        """Descriptors of all that is not on the disk yet, for `flush_all`, which may run in another thread."""
        taken, self._full = self._full, []
        return taken if self._file is None else [*taken, os.dup(self._file)]

    def remove_before(self, segment: int) -> None:
        """Removes the segments with smaller numbers."""
        for path in segments(self.folder):
            if number_of(path) < segment:
                path.unlink()

    def close(self) -> None:
        """Returns when everything is on the disk."""
        flush_all(self.unflushed(), self.folder)
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, *parts: bytes) -> None:
        assert self._file is not None
        length = sum(map(len, parts))
        try:
            written = os.writev(self._file, parts)
            rest = b"" if written == length else b"".join(parts)[written:]  # a disk that is full takes a part first
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            os.ftruncate(self._file, self._size)
            raise JournalWriteError(_refused(self.folder, error)) from error
        self._size += length


def flush_all(descriptors: list[int], folder: Path) -> None:
    """Returns when these files and the names in `folder` are on the disk; closes the files."""
    for file in descriptors:
        os.fsync(file)
        os.close(file)
    names = os.open(folder, os.O_RDONLY)
    os.fsync(names)
    os.close(names)


def _refused(path: Path, error: OSError) -> str:
    return (
        f"the journal in {path} could not be written: {error.strerror or error}; make room or mend the disk. All that was "
        "acknowledged before is in it"
    )
