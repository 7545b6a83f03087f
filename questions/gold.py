"""The only holder of answers. Questions carry none, so whoever was not handed a GoldAnswers cannot see one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Reader = Literal["reward", "diagnostics", "eval"]


class GoldAnswers:
    """Question id → answer, with a count of who looked. A pickled copy starts from the counts it was copied with."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self._answers = dict(answers)
        self.reads: dict[str, int] = dict.fromkeys(get_args(Reader), 0)

    @staticmethod
    def without() -> GoldAnswers:
        """No answers at all: what a label-free rule is given."""
        return GoldAnswers({})

    def read(self, question_id: str, *, reader: Reader) -> str | None:
        """The answer; None where there is none. Every look counts, found or not. KeyError for an unknown reader."""
        self.reads[reader] += 1
        return self._answers.get(question_id)

    @property
    def labels_read(self) -> int:
        """Looks by reward rules: 0 in a label-free run."""
        return self.reads["reward"]

    def __contains__(self, question_id: object) -> bool:
        return question_id in self._answers

    def __len__(self) -> int:
        return len(self._answers)

    def __repr__(self) -> str:
        return f"GoldAnswers({len(self)} answers, reads={self.reads})"
