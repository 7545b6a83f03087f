"""What the token log shall hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogPlan:
    """What the ranks note token by token, and where."""

    folder: str  # each rank writes into one of its own in it
    questions: int | None  # of each update; None: all
    first: int = 1  # update
    last: int | None = None  # None: every later one
