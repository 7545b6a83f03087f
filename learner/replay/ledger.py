"""Counts completions. Each that arrives leaves exactly once:

    generated = trained + voted_only + withheld + dropped (by reason) + waiting

`check` is called at every update with the number the buffer really holds, so a completion that got lost, or was counted
twice, stops the run.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

DropReason = Literal["duplicate", "unasked", "lost_incarnation", "zero_advantage", "stale_policy", "stale_label"]


class LedgerError(AssertionError):
    """Completions were lost or counted twice: a bug of ours, never of the user's."""


class Ledger:
    """The five counts. Only the replay buffer writes it."""

    def __init__(self) -> None:
        self.generated = 0
        self.trained = 0
        self.voted_only = 0
        self.withheld = 0
        self.dropped: Counter[str] = Counter()

    def arrive(self, num: int) -> None:
        self.generated += num

    def drop(self, reason: DropReason, num: int) -> None:
        if num:
            self.dropped[reason] += num

    def leave(self, *, trained: int, voted_only: int, withheld: int) -> None:
        """Completions of questions that an update consumed."""
        self.trained += trained
        self.voted_only += voted_only
        self.withheld += withheld

    def check(self, waiting: int) -> None:
        """LedgerError unless the equation holds with `waiting` completions in the buffer."""
        gone = self.trained + self.voted_only + self.withheld + self.dropped.total()
        if self.generated != gone + waiting:
            raise LedgerError(
                f"generated {self.generated} != trained {self.trained} + voted_only {self.voted_only} + withheld "
                f"{self.withheld} + dropped {dict(self.dropped)} + waiting {waiting}"
            )

    def scalars(self, waiting: int) -> dict[str, float]:
        """The counts since the start of the run, under their metric keys."""
        counts = {
            "ledger/num_generated": self.generated,
            "ledger/num_trained": self.trained,
            "ledger/num_voted_only": self.voted_only,
            "ledger/num_withheld": self.withheld,
            "ledger/num_waiting": waiting,
            "ledger/num_dropped": self.dropped.total(),
        }
        return {k: float(v) for k, v in counts.items()} | {
            f"dropped/num_{reason}": float(num) for reason, num in self.dropped.items()
        }

    def state(self) -> dict[str, Any]:
        return {
            "generated": self.generated,
            "trained": self.trained,
            "voted_only": self.voted_only,
            "withheld": self.withheld,
            "dropped": dict(self.dropped),
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Ledger:
        """The counts of a checkpoint. What was waiting then is gone: its processes ended."""
        ledger = cls()
        ledger.generated, ledger.trained = state["generated"], state["trained"]
        ledger.voted_only, ledger.withheld = state["voted_only"], state["withheld"]
        ledger.dropped = Counter(state["dropped"])
        gone = ledger.trained + ledger.voted_only + ledger.withheld + ledger.dropped.total()
        ledger.drop("lost_incarnation", ledger.generated - gone)
        return ledger
