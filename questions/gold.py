"""Holds the data set's answers. Questions carry none, so only code that is given a GoldAnswers can read one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

Reader = Literal["reward", "diagnostics", "eval"]


class GoldAnswers:
    """Maps question ids to answers and counts the reads of each reader. A pickled copy keeps the counts so far."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self._answers = dict(answers)
        self.reads: dict[str, int] = dict.fromkeys(get_args(Reader), 0)

    @staticmethod
    def without() -> GoldAnswers:
        """No answers, for label-free rules."""
        return GoldAnswers({})

    def read(self, question_id: str, *, reader: Reader) -> str | None:
        """The answer, or None if there is none. Every read counts, found or not. KeyError for an unknown reader."""
        self.reads[reader] += 1
        return self._answers.get(question_id)

    def chosen(self, question_ids: Iterable[str], num: int, *, seed: int) -> tuple[str, ...]:
        """At most `num` of the questions with an answer, sorted by a hash of seed and id: the same for any order. Reads none."""
        known = [question for question in question_ids if question in self._answers]
        return tuple(sorted(known, key=lambda question: _hash(f"label budget|{seed}|{question}"))[:num])

    @property
    def labels_read(self) -> int:
        """Reads by reward rules; 0 in a label-free run."""
        return self.reads["reward"]

    def __contains__(self, question_id: object) -> bool:
        return question_id in self._answers

    def __len__(self) -> int:
        return len(self._answers)

    def __repr__(self) -> str:
        return f"GoldAnswers({len(self)} answers, reads={self.reads})"


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
