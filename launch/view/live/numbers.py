"""Every number that a run reports, by update: metrics.jsonl, read on from where the reading stopped."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from corewarding.launch.report.files import rows_in

POINTS = 600
"""Most points of a curve; a longer run shows means of neighbouring updates."""
_HEAD = 400  # bytes that tell one file from another: the first row has its time


class Numbers:
    """Updates and values of every tag. `read` takes what is new; a file that was written anew is read from its begin."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._head, self._place, self._last = b"", 0, 0
        self._written_s: float | None = None
        self._updates: dict[str, array[int]] = {}
        self._values: dict[str, array[float]] = {}

    def read(self) -> None:
        """Takes the whole lines that have come since the last call. No file is no line."""
        if not self._path.is_file():
            self._forget()
            return
        with self._path.open("rb") as file:
            head = file.read(_HEAD)
            if not head.startswith(self._head) or os.fstat(file.fileno()).st_size < self._place:
                self._forget()
            self._head = head
            file.seek(self._place)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._place += len(whole)
        for row in rows_in(whole):
            self._see(row)

    @property
    def place(self) -> int:
        """Bytes read: another number if there is something new."""
        return self._place

    @property
    def last(self) -> int:
        """The newest update; 0 before the first."""
        return self._last

    @property
    def names(self) -> list[str]:
        return list(self._updates)

    @property
    def written_s(self) -> float | None:
        """When the newest row was written, on the run's clock."""
        return self._written_s

    def values(self, name: str) -> dict[int, float]:
        """Value by update, in order. An update that was made again counts with its last value."""
        found = dict(zip(self._updates.get(name, ()), self._values.get(name, ()), strict=True))
        return dict(sorted(found.items()))

    def curve(self, name: str, step: int) -> list[list[float]]:
        """[update, value] pairs: means over `step` updates, each at the last of them."""
        found: list[list[float]] = []
        for update, values in _buckets(self.values(name), step):
            found.append([update, float(f"{sum(values) / len(values):.5g}")])
        return found

    def rows(self, names: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, float]]]:
        """Update by update the values of these tags."""
        columns = {name: self.values(name) for name in names}
        for update in sorted({update for column in columns.values() for update in column}):
            yield update, {name: column[update] for name, column in columns.items() if update in column}

    def _see(self, row: dict[str, Any]) -> None:
        kind, update = row.get("kind"), row.get("update")
        if not isinstance(update, int) or not isinstance(kind, str):
            return
        prefix = _PREFIXES.get(kind)
        if prefix is None:
            return
        for name, value in row.items():
            if name not in _OWN and isinstance(value, int | float) and math.isfinite(value):
                self._updates.setdefault(prefix + name, array("q")).append(update)
                self._values.setdefault(prefix + name, array("d")).append(value)
        if kind == "update":
            self._last = update
        if isinstance(written_s := row.get("time_s"), float):
            self._written_s = written_s

    def _forget(self) -> None:
        self._head, self._place, self._last, self._written_s = b"", 0, 0, None
        self._updates, self._values = {}, {}


_PREFIXES = {"update": "", "self_test": "", "eval_before": "eval/", "eval_after": "eval/", "eval_quick": "eval_quick/"}
"""Before the name of a number in a row of this kind, to make the tag."""
_OWN = ("update", "kind", "time_s")


def step_of(updates: int) -> int:
    """How many updates share a point of a curve."""
    return max(1, -(-updates // POINTS))


def _buckets(values: Mapping[int, float], step: int) -> Iterator[tuple[int, list[float]]]:
    """The values of updates 1 to step, step + 1 to 2 step, ..., each at its last update; what came before update 1 alone."""
    bucket: list[float] = []
    last = 0
    for update, value in values.items():
        if bucket and -(-update // step) != -(-last // step):
            yield last, bucket
            bucket = []
        bucket.append(value)
        last = update
    if bucket:
        yield last, bucket
