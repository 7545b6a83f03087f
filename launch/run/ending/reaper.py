"""A process beside the driver that ends the driver's Ray if the driver is killed. Run as a file: it imports nothing of ours.

    python reaper.py NAME VALUE

Its standard input is a pipe from the driver, which ends when the driver does. Then all processes are killed whose environment variable
NAME is VALUE, or that write to the folder that the driver named in the pipe, Ray's session; then the folder is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time

import psutil

ROUNDS, PAUSE_S = 3, 0.5  # a process may be starting another


def main() -> None:
    name, value = sys.argv[1:]
    session = sys.stdin.read().strip() or None
    for _ in range(ROUNDS):
        for process in belonging(name, value, session):
            with contextlib.suppress(psutil.Error):  # ended meanwhile
                process.kill()
        time.sleep(PAUSE_S)
    if session:
        shutil.rmtree(session, ignore_errors=True)


def belonging(name: str, value: str, session: str | None) -> list[psutil.Process]:
    """All other processes whose environment variable `name` is `value`, or that write to a file below the folder `session`.

    Ray's agents give themselves a title, which is written over the first variables of their environment.
    """
    folder = None if session is None else os.path.join(os.path.realpath(session), "")
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # another user's, or ended meanwhile
            if process.pid == os.getpid():
                continue
            if process.environ().get(name) == value or (folder is not None and _writes_to(folder, process)):
                found.append(process)
    return found


def _writes_to(folder: str, process: psutil.Process) -> bool:
    return any(file.path.startswith(folder) and getattr(file, "mode", "w") != "r" for file in process.open_files())


if __name__ == "__main__":
    main()
