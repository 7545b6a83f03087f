"""CPU cores of this machine that one trial has for itself, whoever else sweeps here: each is a file that its holder locks."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Cores:
    """Takes cores for a trial. They are free again when every process that inherited `files` has ended."""

    def __init__(self, folder: Path, num: int) -> None:
        """folder: the same for all trials of this machine. A machine with fewer cores than `num` gives all it has."""
        self._folder = folder
        self._all = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._num = min(num, len(self._all))
        self._held: dict[int, int] = {}

    def take(self) -> bool:
        """Takes all the cores that are needed; False, with none of them, if too few are free."""
        for core in self._all:
            if len(self._held) == self._num:
                break
            file = os.open(self._folder / f"core-{core}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
            else:
                self._held[core] = file
        if len(self._held) == self._num:
            return True
        self.give_back()  # another trial may wait for these
        return False

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(self._held)

    @property
    def files(self) -> tuple[int, ...]:
        """To be passed on to the program that runs on the cores."""
        return tuple(self._held.values())

    def give_back(self) -> None:
        """This process holds them no longer."""
        for file in self._held.values():
            os.close(file)
        self._held.clear()
