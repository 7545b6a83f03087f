"""A process beside the driver that ends the driver's Ray if the driver is killed. Run as a file: it imports nothing of ours.

    python reaper.py NAME VALUE

Its standard input is a pipe from the driver, which ends when the driver does. Then all processes whose environment variable NAME is
VALUE are killed, and the folder that the driver named in the pipe, Ray's session, is removed.
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
    session = sys.stdin.read().strip()
    for _ in range(ROUNDS):
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # another user's, or ended meanwhile
                if process.pid != os.getpid() and process.environ().get(name) == value:
                    process.kill()
        time.sleep(PAUSE_S)
    if session:
        shutil.rmtree(session, ignore_errors=True)


if __name__ == "__main__":
    main()
