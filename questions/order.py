"""The order in which questions are asked. It is a function of seed and epoch, so a cursor is a number and a resumed run
continues where it stopped. Each question is asked at most once per epoch. A question that was asked but not consumed is asked
again, before all others.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from corewarding.dataflow.errors import CursorError


@functools.lru_cache(maxsize=8)
def shuffled(num: int, *, seed: int, epoch: int) -> tuple[int, ...]:
    """A permutation of range(num) from Philox's raw stream, which NumPy keeps the same in all versions, unlike `shuffle`."""
    key = np.array([seed % 2**64, epoch], dtype=np.uint64)
    draws = np.random.Philox(key=key).random_raw(num)
    return tuple(np.argsort(draws, kind="stable").tolist())


class QuestionCursor:
    """An endless sequence of (epoch, index).

    `drop_remainder_of` is the number of questions per update. An epoch ends before an incomplete update, and each epoch
    leaves out other questions. If there are fewer questions than one update takes, none is left out.
    """

    def __init__(self, num_questions: int, seed: int, *, drop_remainder_of: int = 1) -> None:
        if num_questions < 1 or drop_remainder_of < 1:
            raise CursorError(
                f"num_questions and drop_remainder_of must be at least 1, got {num_questions} and {drop_remainder_of}"
            )
        self.num_questions = num_questions
        self.seed = seed
        self.drop_remainder_of = drop_remainder_of
        self._position = 0  # items ever taken from the stream of epochs
        self._pending: list[tuple[int, int]] = []

    @property
    def questions_per_epoch(self) -> int:
        whole = self.num_questions // self.drop_remainder_of * self.drop_remainder_of
        return whole or self.num_questions

    @property
    def num_pending(self) -> int:
        """Number of items that were given back and not asked again yet."""
        return len(self._pending)

    def peek(self, n: int) -> list[tuple[int, int]]:
        """The next `n` items (epoch, index), those given back first. Does not move the cursor."""
        pending = self._pending[:n]
        return pending + [self._at(self._position + k) for k in range(n - len(pending))]

    def advance(self, n: int) -> None:
        """Counts the first `n` items of `peek` as asked."""
        if n < 0:
            raise CursorError(f"a cursor moves forward only, got {n}")
        from_pending = min(n, len(self._pending))
        del self._pending[:from_pending]
        self._position += n - from_pending

    def give_back(self, items: Iterable[tuple[int, int]]) -> None:
        """Takes back items that were asked but not consumed. They come before all others, in the given order.

        CursorError for an item that was not asked yet, or that is waiting already and would be asked twice.
        """
        returned = [(int(epoch), int(index)) for epoch, index in items]
        taken = set(self._pending)
        for item in returned:
            if item in taken:
                raise CursorError(f"question {item[1]} of epoch {item[0]} is given back twice")
            if not self._was_asked(*item):
                raise CursorError(f"question {item[1]} of epoch {item[0]} is given back but was never asked")
            taken.add(item)
        self._pending = returned + self._pending

    def state(self) -> dict[str, Any]:
        """The cursor as plain numbers and lists, for a checkpoint."""
        return {
            "num_questions": self.num_questions,
            "seed": self.seed,
            "drop_remainder_of": self.drop_remainder_of,
            "position": self._position,
            "pending": [list(item) for item in self._pending],
        }

    @classmethod
    def restore(
        cls, state: Mapping[str, Any], *, num_questions: int, seed: int, drop_remainder_of: int | None = None
    ) -> QuestionCursor:
        """The cursor that `state()` described. CursorError if it belongs to other questions.

        drop_remainder_of: None takes the saved value; a number must equal it.
        """
        expected = {"num_questions": num_questions, "seed": seed, "drop_remainder_of": drop_remainder_of}
        for name, value in expected.items():
            if value is not None and state[name] != value:
                raise CursorError(
                    f"the checkpoint's question cursor has {name} {state[name]}, this run {value}: its position would "
                    "point at other questions; resume with the same data and seed, or start a new run"
                )
        cursor = cls(num_questions, seed, drop_remainder_of=int(state["drop_remainder_of"]))
        cursor._position = int(state["position"])
        cursor.give_back((epoch, index) for epoch, index in state["pending"])
        return cursor

    def _at(self, position: int) -> tuple[int, int]:
        epoch, offset = divmod(position, self.questions_per_epoch)
        return epoch, shuffled(self.num_questions, seed=self.seed, epoch=epoch)[offset]

    def _was_asked(self, epoch: int, index: int) -> bool:
        current, offset = divmod(self._position, self.questions_per_epoch)
        if not 0 <= epoch <= current:
            return False
        end = self.questions_per_epoch if epoch < current else offset
        return index in shuffled(self.num_questions, seed=self.seed, epoch=epoch)[:end]
