"""Room in shared memory: named if it is too small, reserved as a whole otherwise."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from corewarding.actors import shared_memory
from corewarding.actors.engine import EngineSettingsError
from corewarding.actors.shared_memory import MIB, path_of, reserve, shortage

ROOT = Path(__file__).resolve().parents[3]
SMALL = "from corewarding.actors.shared_memory import reserve, MIB; reserve(6 * MIB); print('one', flush=True); reserve(6 * MIB)"


def test_what_does_not_fit_is_named_with_what_is_needed_and_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    free = SimpleNamespace(free=64 * MIB)
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda _: free)
    assert shortage(64 * MIB) is None
    assert shortage(33 * MIB, engines=2) is not None
    said = str(shortage(100 * MIB))
    assert (
        "engine.tensor_parallel above 1 stages new weights in /dev/shm: that needs 100 MiB, and 64 MiB are free" in said
    )
    assert "--shm-size" in said


def test_what_is_reserved_takes_its_room_at_once_and_is_opened_by_its_path() -> None:
    descriptor = reserve(3 * MIB)
    taken = os.fstat(descriptor)
    assert (taken.st_size, taken.st_blocks * 512) == (3 * MIB, 3 * MIB)
    code = "import sys; open(sys.argv[1], 'r+b').write(b'from another process')"
    subprocess.run([sys.executable, "-c", code, path_of(descriptor)], check=True)
    assert os.pread(descriptor, 20, 0) == b"from another process"
    os.close(descriptor)


def test_a_small_dev_shm_is_refused_before_anything_is_written_there() -> None:
    """In a mount namespace of its own, where /dev/shm is 8 MiB."""
    script = f'mount -t tmpfs -o size=8m none /dev/shm && {sys.executable} -c "{SMALL}"; ls /dev/shm'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"mount namespaces cannot be made here: {done.stderr}")
    assert "that needs 6 MiB, and 2 MiB are free" in done.stderr
    assert EngineSettingsError.__name__ in done.stderr
    assert done.stdout.split() == ["one"]
