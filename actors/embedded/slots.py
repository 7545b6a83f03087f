"""The running sequences as arrays: row i of every array is slot i, and the first `count` rows are running.

When a sequence ends, the last running row moves into its row, so the batch has no holes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corewarding.actors.engine import SampledSequence
from corewarding.actors.stepped import Pending
from corewarding.dataflow.carriers import FinishReason


class Slots:
    """Rows of running sequences. L is the longest completion, S the number of slots."""

    def __init__(self, num_slots: int, max_len: int) -> None:
        self.count = 0
        self.owner: list[Pending | None] = [None] * num_slots
        self.length = np.zeros(num_slots, np.int64)  # tokens in the KV cache
        self.num_new = np.zeros(num_slots, np.int64)
        self.max_new = np.zeros(num_slots, np.int64)
        self.temperature = np.zeros(num_slots, np.float32)
        self.key = np.zeros(num_slots, np.uint64)
        self.tokens = np.zeros((num_slots, max_len), np.int32)
        self.logprobs = np.zeros((num_slots, max_len), np.float32)
        self.versions = np.zeros((num_slots, max_len), np.int32)

    @property
    def num_free(self) -> int:
        return len(self.owner) - self.count

    def take(self, pending: Pending) -> int:
        """Gives `pending` the next row. Its prompt must then be prefilled."""
        row, task = self.count, pending.task
        self.count += 1
        self.owner[row] = pending
        self.length[row] = len(task.prompt_token_ids)
        self.num_new[row] = 0
        self.max_new[row] = task.max_new_tokens
        self.temperature[row] = task.temperature
        self.key[row] = pending.stream_key
        return row

    def record(self, rows: slice, tokens: NDArray[np.int64], logprobs: NDArray[np.float32], version: int) -> None:
        """Appends one sampled token to each of `rows`, stamped with the version of the weights."""
        index = np.arange(rows.start, rows.stop)
        place = self.num_new[rows]
        self.tokens[index, place] = tokens
        self.logprobs[index, place] = logprobs
        self.versions[index, place] = version
        self.num_new[rows] += 1

    def last_tokens(self) -> NDArray[np.int64]:
        """[count] the newest token of each running sequence, which the next step reads."""
        index = np.arange(self.count)
        return self.tokens[index, self.num_new[: self.count] - 1].astype(np.int64)

    def cached_tokens(self, row: int) -> NDArray[np.int32]:
        """The tokens of a row that are in the cache: its prompt and all but its newest token."""
        owner = self.owner[row]
        assert owner is not None
        return np.concatenate([owner.task.prompt_token_ids, self.tokens[row, : self.num_new[row] - 1]])

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

    def release(self, row: int) -> int:
        """Frees `row`. Returns the row that must move into it, or `row` itself if it was the last."""
        self.count -= 1
        last = self.count
        if row != last:
            n = int(self.num_new[last])
            for column in (self.length, self.num_new, self.max_new, self.temperature, self.key):
                column[row] = column[last]
            for table in (self.tokens, self.logprobs, self.versions):
                table[row, :n] = table[last, :n]
            self.owner[row] = self.owner[last]
        self.owner[last] = None
        return last
