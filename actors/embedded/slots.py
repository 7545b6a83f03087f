"""The running sequences as arrays: row i of every array is slot i. A step computes the first `count` rows.

A sequence that ends leaves a hole, which the next one to start takes. What is left of them is closed before a step: the last rows move
into the holes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from corewarding.actors.engine import SampledSequence
from corewarding.actors.stepped import Pending
from corewarding.dataflow.carriers import FinishReason


class Slots:
    """Rows of running sequences. L is the longest completion, S the number of slots."""

    def __init__(self, num_slots: int, max_len: int) -> None:
        self.count = 0
        self._holes: list[int] = []
        self.owner: list[Pending | None] = [None] * num_slots
        self.length = np.zeros(num_slots, np.int64)  # tokens in the KV cache
        self.num_new = np.zeros(num_slots, np.int64)
        self.max_new = np.zeros(num_slots, np.int64)
        self.temperature = np.zeros(num_slots, np.float32)
        self.key = np.zeros(num_slots, np.uint64)
        self.fresh = np.zeros(num_slots, bool)  # its prompt was read by the weights that are in place
        self.tokens = np.zeros((num_slots, max_len), np.int32)
        self.logprobs = np.zeros((num_slots, max_len), np.float32)
        self.versions = np.zeros((num_slots, max_len), np.int32)

    @property
    def num_running(self) -> int:
        return self.count - len(self._holes)

    @property
    def num_free(self) -> int:
        return len(self.owner) - self.num_running

    def running(self) -> Iterator[tuple[int, Pending]]:
        """(row, its sequence) of all running rows."""
        return ((row, owner) for row, owner in enumerate(self.owner[: self.count]) if owner is not None)

    def take(self, pending: Pending) -> int:
        """Gives `pending` a free row. Its prompt must then enter the cache."""
        task = pending.task
        if self._holes:
            row = self._holes.pop()
        else:
            row, self.count = self.count, self.count + 1
        self.owner[row] = pending
        self.length[row] = len(task.prompt_token_ids)
        self.num_new[row] = 0
        self.max_new[row] = task.max_new_tokens
        self.temperature[row] = task.temperature
        self.key[row] = pending.stream_key
        self.fresh[row] = True
        return row

    def record(
        self, rows: NDArray[np.int64], tokens: NDArray[np.int64], logprobs: NDArray[np.float32], version: int
    ) -> None:
        """Appends one sampled token to each of `rows`, stamped with the version of the weights."""
        place = self.num_new[rows]
        self.tokens[rows, place] = tokens
        self.logprobs[rows, place] = logprobs
        self.versions[rows, place] = version
        self.num_new[rows] += 1

    def last_tokens(self) -> NDArray[np.int64]:
        """[count] the newest token of each running sequence, which the next step reads."""
        index = np.arange(self.count)
        return self.tokens[index, self.num_new[: self.count] - 1].astype(np.int64)

    def cached_sampled(self, row: int) -> NDArray[np.int32]:
        """The sampled tokens of a row that are in the cache, behind its prompt: all but its newest one."""
        return self.tokens[row, : self.num_new[row] - 1]

    def sequence(self, row: int, finish: FinishReason, now_s: float) -> SampledSequence:
        owner, n = self.owner[row], int(self.num_new[row])
        assert owner is not None
        return SampledSequence(
            sample_index=owner.sample_index,
            token_ids=self.tokens[row, :n].copy(),
            behavior_logprobs=self.logprobs[row, :n].copy(),
            token_versions=self.versions[row, :n].copy(),
            finish_reason=finish,
            started_s=owner.started_s,
            finished_s=now_s,
        )

    def release(self, row: int) -> None:
        """Frees `row`."""
        self.owner[row] = None
        self._holes.append(row)

    def close_holes(self) -> tuple[list[int], list[int]]:
        """Moves the last running rows into the holes, so that the first `count` rows run. Returns the rows before and after."""
        sources, targets = [], []
        for hole in sorted(self._holes):
            while self.count and self.owner[self.count - 1] is None:
                self.count -= 1
            if hole >= self.count:
                break
            self.count -= 1
            self._move(self.count, hole)
            sources.append(self.count)
            targets.append(hole)
        self._holes.clear()
        return sources, targets

    def _move(self, source: int, target: int) -> None:
        n = int(self.num_new[source])
        for column in (self.length, self.num_new, self.max_new, self.temperature, self.key, self.fresh):
            column[target] = column[source]
        for table in (self.tokens, self.logprobs, self.versions):
            table[target, :n] = table[source, :n]
        self.owner[target], self.owner[source] = self.owner[source], None
