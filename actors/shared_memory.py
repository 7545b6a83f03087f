"""Shared memory that several processes of one engine map: its room is checked before a run and reserved when an engine starts.

A file in /dev/shm takes memory only as it is written, and a process that writes past the end of the file system is killed. So the
whole file is allocated at once. It has no name, so nothing is left of it when its process ends, however that happens.
Imports no torch.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from corewarding.actors.engine import EngineSettingsError

SHARED_MEMORY = Path("/dev/shm")
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


def reserve(num_bytes: int) -> int:
    """A nameless file of that size in shared memory, as a descriptor that keeps it. EngineSettingsError if there is no room."""
    if reason := shortage(num_bytes):
        raise EngineSettingsError(reason)
    descriptor = os.open(SHARED_MEMORY, os.O_RDWR | os.O_TMPFILE, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, num_bytes)
    except OSError as error:  # another process was quicker
        os.close(descriptor)
        raise EngineSettingsError(shortage(num_bytes) or f"{SHARED_MEMORY}: {error}") from error
    return descriptor


def path_of(descriptor: int) -> str:
    """A path under which other processes of this user open this process's file while it lives."""
    return f"/proc/{os.getpid()}/fd/{descriptor}"
