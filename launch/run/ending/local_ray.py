"""Ends the Ray that a run started on this machine, with every process that belongs to it.

`ray.shutdown` alone leaves agents for half a minute, or for ever where Ray was interrupted while it started. The processes are
found by an environment variable that they inherit, however they came to be.
"""

from __future__ import annotations

import contextlib
import os
import uuid

import psutil
import ray

MARK = "COREWARDING_RAY"


def mark() -> None:
    """Called before Ray is started: all its processes inherit the mark."""
    os.environ[MARK] = uuid.uuid4().hex


def shut_down() -> None:
    """Leaves the cluster. If this process started it (`mark` was called), all its processes are ended."""
    ray.shutdown()
    end_processes()


def end_processes() -> None:
    """Ends all marked processes but this one, by SIGKILL; does nothing where none was marked."""
    value = os.environ.pop(MARK, None)
    if value is None:
        return
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # another user's, or ended meanwhile
            if process.pid != os.getpid() and process.environ().get(MARK) == value:
                left.append(process)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=5)
