"""This process: its cores, its log file and its garbage collector; and what the log of another one says of its death."""

from __future__ import annotations

import atexit
import faulthandler
import gc
import os
import re
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from corewarding.dataflow.errors import UserError, reason_of

COLLECTS_RARELY = "CW_COLLECTS_RARELY"
"""Set in the environment of a process that is there for a run alone."""
RARELY = 100_000
_USUALLY = gc.get_threshold()
BEGIN = "--- process"
"""The line with which each process begins in its log: a log that exists is continued."""
_STACK = re.compile(r"(Current thread|Thread|  File |  \.\.\.|Extension modules:|  <no Python frame>)")
_TAIL_BYTES = 2**16


def collect_rarely() -> None:
    """Until `settle`, Python looks for garbage after RARELY new objects instead of 700. For a process that is there for a run alone.

    torch and transformers make 400,000 objects that live for ever: to look through them again and again is a fifth of their import.
    Nor are they looked through when the process ends, which took it 1.5 s.
    """
    gc.set_threshold(RARELY)
    atexit.register(gc.freeze)


def settle() -> None:
    """Garbage is looked for as usual, and not among what was imported: a cycle may hold tensors, and should not hold them for long.
    Nothing happens without `collect_rarely` before."""
    if gc.get_threshold()[0] == RARELY:
        gc.freeze()
        gc.set_threshold(*_USUALLY)


def pin_to_cores(cores: Iterable[int] | None, *, key: str) -> None:
    """Pins all threads of this process, and threads it starts later, to `cores`. None changes nothing. Linux only.

    key: of the configuration, for the message. UserError if the process may not use one of the cores; it names those it may use.
    """
    if cores is None:
        return
    wanted, usable = set(cores), os.sched_getaffinity(0)
    if not wanted or not wanted <= usable:
        raise UserError(f"{key} {sorted(wanted)} cannot be used: a process of this machine may use {sorted(usable)}")
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), wanted)


def keep_log(path: Path | None) -> None:
    """From now on, what this process and its children print is appended to `path`, and the stacks of its threads too when it
    crashes or gets SIGUSR1. None changes nothing."""
    if path is None:
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)
    keep_stacks(2)
    print(f"{BEGIN} {os.getpid()}", file=sys.stderr, flush=True)


def keep_stacks(file: int) -> None:
    """The stacks of all threads go to this file descriptor when the process crashes, and at SIGUSR1."""
    faulthandler.enable(file=file, all_threads=True)
    faulthandler.register(signal.SIGUSR1, file=file, all_threads=True, chain=False)


def death_of(error: BaseException, log: Path | None) -> str:
    """Why a process died: the error that ended it if Ray knows one, otherwise what its log and this machine know."""
    reason = reason_of(error)
    if "connection error" not in reason or log is None:  # Ray's words for a process that ended without a goodbye
        return reason
    said = last_words(log)
    crashes = [line for line in said if line.startswith("Fatal Python error")]
    if crashes:
        how = f"it crashed ({crashes[-1]}; the stacks are in {log})"
    elif said:
        how = f"its process ended; last words: {' / '.join(said[-3:])} ({log})"
    else:
        how = f"its process ended without a word, as after SIGKILL ({log})"
    if killed := oom_kills():
        how += f"; since its machine started, {killed} processes were killed because memory was full (dmesg names them)"
    return how


def last_words(log: Path) -> list[str]:
    """What the latest process of this log printed, without stacks; empty if the log cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    starts = [number for number, line in enumerate(lines) if line.startswith(BEGIN)]
    own = lines[starts[-1] + 1 :] if starts else lines
    return [line.strip() for line in own if line.strip() and not _STACK.match(line)]


def oom_kills() -> int:
    """Processes of this container or machine that the kernel ended for lack of memory; 0 where that cannot be read."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control", "/proc/vmstat"):
        try:
            fields = dict(line.split()[:2] for line in Path(path).read_text().splitlines() if len(line.split()) >= 2)
        except OSError:
            continue
        if "oom_kill" in fields:
            return int(fields["oom_kill"])
    return 0
