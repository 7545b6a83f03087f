"""Segments of a journal: what is appended is read again, torn tails are cut, and other damage is named."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewarding.learner.replay.journal.segments import (
    MAGIC,
    JournalError,
    JournalWriteError,
    SegmentWriter,
    Torn,
    read,
    segments,
)

RECORDS = [b"a", b"bc" * 40, b"\0" * 30]


def write(folder: Path, records: list[bytes], *, segment_bytes: int = 2**20) -> list[Path]:
    writer = SegmentWriter(folder, segment_bytes=segment_bytes)
    for record in records:
        writer.append(record)
    writer.close()
    return segments(folder)


def payloads(segment: Path, torn: list[Torn] | None = None) -> list[bytes]:
    return [payload for _, payload in read(segment, torn=torn)]


def test_records_come_back_in_order_over_as_many_segments_as_are_needed(tmp_path: Path) -> None:
    found = write(tmp_path, RECORDS * 3, segment_bytes=150)
    assert len(found) > 2
    assert [payload for segment in found for payload in payloads(segment)] == RECORDS * 3
    again = write(tmp_path, [b"later"])
    assert again[:-1] == found
    assert payloads(again[-1]) == [b"later"]


def test_a_file_cut_anywhere_gives_the_whole_records_before_the_cut(tmp_path: Path) -> None:
    (segment,) = write(tmp_path, RECORDS)
    content = segment.read_bytes()
    ends = [len(MAGIC)]
    for record in RECORDS:
        ends.append(ends[-1] + 12 + len(record))
    for length in range(len(content)):
        segment.write_bytes(content[:length])
        torn: list[Torn] = []
        whole = sum(end <= length for end in ends[1:])
        assert payloads(segment, torn) == RECORDS[:whole]
        left = 0 if length < len(MAGIC) else ends[whole]
        assert [(one.whole, one.cut) for one in torn] == ([] if length == left and length else [(left, length - left)])


def test_a_tail_of_zeros_is_torn(tmp_path: Path) -> None:
    (segment,) = write(tmp_path, RECORDS)
    size = segment.stat().st_size
    with segment.open("ab") as file:
        file.write(b"\0" * 5000)
    torn: list[Torn] = []
    assert payloads(segment, torn) == RECORDS
    assert torn == [Torn(segment, size, 5000)]
    with pytest.raises(JournalError, match="unfinished"):
        payloads(segment)


@given(at=st.integers(0, 150), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_read_as_a_record(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    (segment,) = write(tmp_path_factory.mktemp("flipped"), RECORDS)
    content = bytearray(segment.read_bytes())
    content[at % len(content)] ^= 1 << bit
    segment.write_bytes(content)
    torn: list[Torn] = []
    found: list[bytes] = []
    damaged = False
    try:
        for _, payload in read(segment, torn=torn):
            found.append(payload)
    except JournalError as error:
        damaged = str(segment) in str(error)
    assert damaged or torn
    assert found == RECORDS[: len(found)]
    if torn:  # only the last record can be taken for an unfinished one
        assert len(found) == len(RECORDS) - 1


def test_a_full_disk_leaves_whole_records_and_names_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SegmentWriter(tmp_path)
    writer.append(b"first")
    real = os.writev

    def half(file: int, parts: list[bytes]) -> int:
        return real(file, [b"".join(parts)[:7]])

    def full(file: int, rest: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", half)
        patch.setattr(os, "write", full)
        with pytest.raises(JournalWriteError, match=r"No space left on device.*make room"):
            writer.append(b"second")
    writer.append(b"third")
    writer.close()
    (segment,) = segments(tmp_path)
    assert payloads(segment) == [b"first", b"third"]


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "segment-000001.cwj"
    path.write_bytes(b"another file altogether")
    with pytest.raises(JournalError, match="no journal"):
        payloads(path)
    (tmp_path / "segment-000002.cwj").symlink_to(path)
    assert segments(tmp_path) == [path]


def test_older_segments_are_removed_and_numbers_never_come_again(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=1)
    for record in RECORDS:
        writer.append(record)
    kept = segments(tmp_path)[-1]
    writer.remove_before(3)
    assert segments(tmp_path) == [kept]
    writer.close()
    assert [path.name for path in write(tmp_path, [b"x"])] == [kept.name, "segment-000004.cwj"]
