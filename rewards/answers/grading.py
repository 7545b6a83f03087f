"""Whether an answer is right, given the right one: wider than the equivalence of votes, since nothing has to be transitive here."""

from __future__ import annotations

import hashlib
from pathlib import Path

from corewarding.rewards.answers.key import CanonicalAnswer, canonical_key

_SOURCES = ("extract", "grading", "key", "parser", "tokens", "value")  # the modules a verdict depends on


def grader_version() -> str:
    """12 hex digits of the code that extracts and grades: verdicts of different versions are not comparable."""
    folder = Path(__file__).parent
    return hashlib.sha256(b"".join((folder / f"{name}.py").read_bytes() for name in _SOURCES)).hexdigest()[:12]


def grade(answer: str | None, gold: str) -> bool:
    """Equal keys; and where the right answer is a percentage, its number without the sign. No answer is wrong."""
    if answer is None:
        return False
    given, right = canonical_key(answer), canonical_key(gold)
    return given == right or (right.kind == "percent" and CanonicalAnswer(given.key + "%", "percent") == right)
