"""One process at a time has a run's folder, however the last one ended."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from corewarding.launch.report.run_lock import RunLockedError, refuse_locked, run_lock

HOLD = """
import sys
from pathlib import Path
from corewarding.launch.report.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder until its stdin is closed."""
    words = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def test_a_second_process_is_refused_and_the_first_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with holder(folder) as first:
        for attempt in (lambda: refuse_locked(folder), lambda: run_lock(folder).__enter__()):
            with pytest.raises(RunLockedError, match=rf"in use by process {first.pid} on .* \(since .*run.name"):
                attempt()
        assert first.poll() is None
    refuse_locked(folder)


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with holder(folder) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
        with run_lock(folder), pytest.raises(RunLockedError, match=f"process {os.getpid()} "):
            refuse_locked(folder)


def test_an_empty_folder_goes_and_a_full_one_stays(tmp_path: Path) -> None:
    with run_lock(tmp_path / "a"):
        assert (tmp_path / "a").is_dir()
    assert not (tmp_path / "a").exists()
    with run_lock(tmp_path / "b"):
        (tmp_path / "b" / "config.yaml").touch()
    assert (tmp_path / "b" / "config.yaml").exists()


def test_it_ends_well_when_a_person_removes_the_folder(tmp_path: Path) -> None:
    with run_lock(tmp_path / "a"):
        (tmp_path / "a" / ".lock").unlink()
        (tmp_path / "a").rmdir()


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b'{"pid": "x"}', bytes(range(256))])
def test_a_holder_that_wrote_no_name_still_holds(garbage: bytes, tmp_path: Path) -> None:
    with run_lock(tmp_path / "a"):
        (tmp_path / "a" / ".lock").write_bytes(garbage)
        with pytest.raises(RunLockedError, match="in use by another process"):
            refuse_locked(tmp_path / "a")


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuses)
    refuse_locked(tmp_path / "a")
    with run_lock(tmp_path / "a"):
        assert "has no locks (flock: No locks available)" in capsys.readouterr().err


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "precious").write_text("years")
    (tmp_path / "a" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"), run_lock(tmp_path / "a"):
        pass
    assert (tmp_path / "precious").read_text() == "years"
