"""Reading a journal that is still written, or that a stranger made."""

import contextlib
import tracemalloc
import zlib
from pathlib import Path

import pytest

from corewarding.launch.view.tail import BEGIN, frames
from corewarding.learner.replay.journal.segments import FRAME, MAGIC, JournalError


def claiming(length: int, payload: bytes) -> bytes:
    """A frame whose header says `length`, with a checksum of its own that is right."""
    head = FRAME.pack(length, zlib.crc32(payload), 0)[:8]
    return head + zlib.crc32(head).to_bytes(4, "little") + payload


@pytest.mark.parametrize("length", [2**30, 2**30 + 1, 2**32 - 1])
def test_a_frame_that_claims_more_than_the_file_holds_takes_no_memory(tmp_path: Path, length: int) -> None:
    (tmp_path / "segment-000001.cwj").write_bytes(MAGIC + claiming(length, b"short"))
    tracemalloc.start()
    with contextlib.suppress(JournalError):  # more than a record may have is damage, less an unfinished end
        list(frames(tmp_path, BEGIN))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**21, "a block of 1 MiB in which zeros are looked for"


def test_a_record_of_another_checksum_is_damage_unless_it_is_the_last(tmp_path: Path) -> None:
    wrong = claiming(5, b"right")[:-5] + b"wrong"
    segment = tmp_path / "segment-000001.cwj"
    segment.write_bytes(MAGIC + wrong)
    assert list(frames(tmp_path, BEGIN)) == []
    segment.write_bytes(MAGIC + wrong + wrong)
    with pytest.raises(JournalError, match=f"segment-000001.cwj is damaged at byte {len(MAGIC)}"):
        list(frames(tmp_path, BEGIN))


def test_an_empty_record_ends_the_reading(tmp_path: Path) -> None:
    (tmp_path / "segment-000001.cwj").write_bytes(MAGIC + claiming(0, b"") * 3)
    with pytest.raises(JournalError, match="damaged"):
        list(frames(tmp_path, BEGIN))
