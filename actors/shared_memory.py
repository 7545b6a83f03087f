"""Shared memory that several processes of one engine map: its room is checked before a run and reserved when an engine starts.

A file in /dev/shm takes memory only as it is written, and a process that writes past the end of the file system is killed. So the
whole file is allocated at once. It is locked while its process lives; one that no process holds is removed by the next that
reserves. Imports no torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

from corewarding.actors.engine import EngineSettingsError

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "corewarding-"
MIB = 2**20


def shortage(num_bytes: int, *, engines: int = 1) -> str | None:
    """Why there is no room for the staged weights of that many engines, of `num_bytes` each, with the remedy; None if there is."""
    free = shutil.disk_usage(SHARED_MEMORY).free
    if engines * num_bytes <= free:
        return None
    wanted = f"{num_bytes * engines / MIB:,.0f} MiB" + (f" for {engines} engines" if engines > 1 else "")
    return (
        f"engine.tensor_parallel above 1 stages new weights in {SHARED_MEMORY}: that needs {wanted}, and "
        f"{free / MIB:,.0f} MiB are free; make it larger (docker run --shm-size, or mount -o remount,size=...), put fewer "
        "engines on a node (rollout.resources), or set engine.tensor_parallel 1"
    )


def reserve(name: str, num_bytes: int) -> int:
    """Makes the file `path_of(name)` of that size in shared memory; returns the descriptor that locks it, to be kept open.

    EngineSettingsError, and no file, if there is no room.
    """
    _remove_abandoned()
    if reason := shortage(num_bytes):
        raise EngineSettingsError(reason)
    file = path_of(name)
    new = file.with_name(f".{file.name}")  # not removed as abandoned before it is locked
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, num_bytes)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        new.rename(file)
    except OSError as error:
        os.close(descriptor)
        new.unlink(missing_ok=True)
        raise EngineSettingsError(shortage(num_bytes) or f"{file}: {error}") from error
    return descriptor


def path_of(name: str) -> Path:
    """The file of that name."""
    return SHARED_MEMORY / (PREFIX + name)


def _remove_abandoned() -> None:
    """Removes the files of processes that were killed."""
    for file in SHARED_MEMORY.glob(PREFIX + "*"):
        with contextlib.suppress(OSError), file.open("rb") as opened:  # locked, or gone already
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()
