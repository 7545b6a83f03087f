"""Becomes the program of a trial, which is asked to end (SIGTERM) when the process that started it dies. Run as a file.

    python launcher.py CORES PROGRAM [ARGUMENT ...]

CORES: numbers of the CPU cores that it may use, joined by commas; `-` for all. Imports nothing of ours.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    cores, *program = sys.argv[1:]
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if cores != "-":
            os.sched_setaffinity(0, map(int, cores.split(",")))
    if os.getppid() != parent:  # it died before that
        sys.exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # Ray's workers block Ctrl-C
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
