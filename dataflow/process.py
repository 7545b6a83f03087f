"""Which cores of the machine a process may use."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from corewarding.dataflow.errors import UserError


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
