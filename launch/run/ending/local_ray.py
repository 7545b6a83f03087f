"""The Ray that a run started on this machine: watches its own processes, and ends it with every process and file of it.

`ray.shutdown` alone leaves agents for half a minute, or for ever where Ray was interrupted while it started. The processes are
found by an environment variable that they inherit, however they came to be, and by the files that they write.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import ray

from corewarding.launch.run.ending import own_ray
from corewarding.launch.run.ending.reaper import belonging

MARK, SESSION = "COREWARDING_RAY", "COREWARDING_RAY_SESSION"
OWNER = "corewarding.pid"
"""File in the folder of a Ray session of ours: the process that started it."""
ROUNDS = 3
"""How often processes are looked for: one may be starting another."""
HEAD = {"gcs_server": "Ray's GCS", "raylet": "the raylet"}
STOPPED_S = 10.0
"""A process of Ray that is stopped for so long is lost; a shorter stop may be a terminal's Ctrl-Z."""


def mark() -> int:
    """Called before Ray is started: all its processes inherit the mark. Returns the pipe to the process that ends them if this one
    is killed."""
    os.environ[MARK] = uuid.uuid4().hex
    reading, writing = os.pipe()
    command = [sys.executable, str(Path(__file__).with_name("reaper.py")), MARK, os.environ[MARK]]
    subprocess.Popen(
        command, stdin=reading, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    os.close(reading)
    return writing


def own_session(folder: Path, reaper: int) -> None:
    """Ray was started and keeps its logs and sockets in `folder`. Removes the folders that killed runs left beside it.

    reaper: what `mark` returned.
    """
    os.environ[SESSION] = str(folder)
    os.write(reaper, str(folder).encode())
    (folder / OWNER).write_text(f"{os.getpid()} {platform.node()}")
    for owner in folder.parent.glob(f"session_*/{OWNER}"):
        with contextlib.suppress(OSError, ValueError):  # another run removes it, too
            pid, node = owner.read_text().split()
            if node == platform.node() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(owner.parent, ignore_errors=True)


def shut_down(*, keep: Path | None = None) -> None:
    """Leaves the cluster. If this process started it (`mark` was called), all its processes are ended and its folder is removed.

    keep: a folder that gets the logs of Ray's own processes, after a run that failed.
    """
    ray.shutdown()
    end_processes(keep=keep)
    own_ray.forget_token()


def end_processes(*, keep: Path | None = None) -> None:
    """Ends all processes of our Ray but this one, by SIGKILL; does nothing where `mark` was not called."""
    value, session = os.environ.pop(MARK, None), os.environ.pop(SESSION, None)
    if value is None:
        return
    for _ in range(ROUNDS):
        left = belonging(MARK, value, session)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=5)
    if session is not None:
        _remove(Path(session), keep)


def _remove(session: Path, keep: Path | None) -> None:
    if keep is not None:
        with contextlib.suppress(OSError):  # a full disk; the run's own message stays
            (keep / "ray").mkdir(parents=True, exist_ok=True)
            for log in [one for name in HEAD for one in (session / "logs").glob(f"{name}*")]:
                shutil.copy(log, keep / "ray")
    shutil.rmtree(session, ignore_errors=True)
    latest = session.parent / "session_latest"
    if latest.is_symlink() and not latest.exists():
        latest.unlink(missing_ok=True)


class Head:
    """GCS and raylet of the Ray that this process started; nothing where it started none."""

    def __init__(self) -> None:
        value = os.environ.get(MARK)
        marked = [] if value is None else belonging(MARK, value, None)
        self._processes: dict[str, psutil.Process] = {}
        for process in marked:
            with contextlib.suppress(psutil.Error):
                if process.name() in HEAD:
                    self._processes[HEAD[process.name()]] = process
        self._stopped_at: dict[str, float] = {}

    def stopped(self) -> list[str]:
        """Those that are stopped now."""
        found = []
        for name, process in self._processes.items():
            with contextlib.suppress(psutil.Error):
                if process.status() == psutil.STATUS_STOPPED:
                    found.append(f"{name} (process {process.pid})")
        return found

    def lost(self) -> str | None:
        """Which of them has ended, or is stopped for `STOPPED_S`; None if all run."""
        for name, process in self._processes.items():
            try:
                status = process.status()
            except psutil.NoSuchProcess:
                status = psutil.STATUS_DEAD
            if status in (psutil.STATUS_DEAD, psutil.STATUS_ZOMBIE):
                return f"{name} (process {process.pid}), which the run had started, ended"
            if status != psutil.STATUS_STOPPED:
                self._stopped_at.pop(name, None)
            elif time.monotonic() - self._stopped_at.setdefault(name, time.monotonic()) > STOPPED_S:
                return f"{name} (process {process.pid}) is stopped (SIGSTOP) for {STOPPED_S:g} s; nothing can be started or ended"
        return None
