"""What a process of ours may use of its machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def pin_to_cores(cores: Iterable[int] | None) -> None:
    """Every thread of this process, and those it will start, stay on `cores`; None changes nothing. Linux only.

    ValueError, naming the cores there are, for one that is not.
    """
    if cores is None:
        return
    wanted, there = set(cores), os.sched_getaffinity(0)
    if not wanted or not wanted <= there:
        raise ValueError(f"cores {sorted(wanted)} cannot be used: this process may use {sorted(there)}")
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), wanted)
