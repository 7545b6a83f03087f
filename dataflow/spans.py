"""Time in a run: the one clock of its processes, and spans on it. Spans make the trace of a run.

`now_s` gives seconds since the epoch, as the wall clock stood when the run started, and goes on by the monotonic clock. So setting
the wall clock changes no limit, no duration and no span. On Linux the monotonic clock is one for all processes of a machine: they
take over the driver's offset from their environment, and their times compare exactly. Another machine measures its own offset.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

OFFSET = "COREWARDING_CLOCK"
"""Environment variable of the processes of a run: the driver's machine, and what it adds to its monotonic clock."""


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time, in seconds of `now_s`."""

    lane: str  # where it is drawn: the learner, a weight channel, a rollout actor
    name: str  # its first word is its kind, as in "sample q1/e0/original/policy"
    started_s: float
    ended_s: float


def now_s() -> float:
    """The time in seconds since the epoch. It never jumps."""
    return _OFFSET_S + time.monotonic()


def environment() -> dict[str, str]:
    """Environment variables with which another process of the run takes over this process's clock."""
    return {OFFSET: f"{_machine()} {_OFFSET_S!r}"}


def offset_s(inherited: str | None, machine: str) -> float:
    """What to add to the monotonic clock of `machine`. inherited: the value of OFFSET, if there is one."""
    of, _, seconds = (inherited or "").partition(" ")
    return float(seconds) if seconds and of == machine else time.time() - time.monotonic()


def _machine() -> str:
    """Changes with each boot, with which the monotonic clock starts again."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text().strip() if boot.exists() else platform.node()


_OFFSET_S = offset_s(os.environ.get(OFFSET), _machine())
