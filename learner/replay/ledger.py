"""Counts completions. Each one that arrives leaves exactly once:

    generated = trained + voted_only + withheld + dropped (by reason) + waiting

`check` is called at every update with the number that the buffer really holds, so a completion that was lost or counted twice
stops the run.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from corewarding.learner.replay.events import (
    DropReason,
    Event,
    GroupAccepted,
    GroupRefused,
    QuestionEvicted,
    QuestionFailed,
    UpdateScored,
)


class LedgerError(AssertionError):
    """Completions were lost or counted twice. This is a bug of the program, not a mistake in its input."""


class Ledger:
    """The counts since the start of the run."""

    def __init__(self) -> None:
        self.generated = 0
        self.trained = 0
        self.voted_only = 0
        self.withheld = 0
        self.dropped: Counter[DropReason] = Counter()
        self.failed_questions = 0

    def record(self, event: Event) -> None:
        """Counts the completions of one event."""
        match event:
            case GroupAccepted(completions=completions):
                self.generated += len(completions)
            case GroupRefused(reason=reason, completions=completions):
                self.generated += len(completions)
                self.dropped[reason] += len(completions)
            case QuestionEvicted(reason=stale, completions=completions):
                self.dropped[stale] += len(completions)
            case QuestionFailed(completions=completions):
                self.failed_questions += 1
                self.dropped["failed_task"] += len(completions)
            case UpdateScored():
                self.trained += len(event.trained)
                self.withheld += len(event.withheld)
                self.voted_only += event.num_voted_only
                if event.num_skipped:
                    self.dropped["zero_advantage"] += event.num_skipped

    def check(self, waiting: int) -> None:
        """LedgerError unless the equation holds with `waiting` completions in the buffer."""
        if self.generated != self._left + waiting:
            raise LedgerError(
                f"generated {self.generated} != trained {self.trained} + voted_only {self.voted_only} + withheld "
                f"{self.withheld} + dropped {dict(self.dropped)} + waiting {waiting}"
            )

    def scalars(self, waiting: int) -> dict[str, float]:
        """The counts since the start of the run, by metric key."""
        counts = {
            "ledger/num_generated": self.generated,
            "ledger/num_trained": self.trained,
            "ledger/num_voted_only": self.voted_only,
            "ledger/num_withheld": self.withheld,
            "ledger/num_waiting": waiting,
            "ledger/num_dropped": self.dropped.total(),
            "ledger/num_failed_questions": self.failed_questions,
        }
        return {k: float(v) for k, v in counts.items()} | {
            f"dropped/num_{reason}": float(num) for reason, num in self.dropped.items()
        }

    def state(self) -> dict[str, Any]:
        """For a checkpoint; JSON-ready."""
        return {
            "generated": self.generated,
            "trained": self.trained,
            "voted_only": self.voted_only,
            "withheld": self.withheld,
            "dropped": dict(self.dropped),
            "failed_questions": self.failed_questions,
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Ledger:
        """The counts of a checkpoint. Completions that waited then are lost: the processes that held them ended."""
        ledger = cls.of(state)
        lost = ledger.generated - ledger._left
        if lost:
            ledger.dropped["lost_incarnation"] += lost
        return ledger

    @classmethod
    def of(cls, state: dict[str, Any]) -> Ledger:
        """The same counts as those of `state()`."""
        ledger = cls()
        ledger.generated, ledger.trained = state["generated"], state["trained"]
        ledger.voted_only, ledger.withheld = state["voted_only"], state["withheld"]
        ledger.dropped = Counter(state["dropped"])
        ledger.failed_questions = state.get("failed_questions", 0)  # checkpoints before this count have none
        return ledger

    @property
    def _left(self) -> int:
        return self.trained + self.voted_only + self.withheld + self.dropped.total()
