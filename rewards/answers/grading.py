"""Whether an answer is right, given the correct one. Accepts more than equal keys, because grading need not be transitive."""

from __future__ import annotations

import hashlib
from pathlib import Path

from corewarding.rewards.answers.key import CanonicalAnswer, canonical_key


def grader_version() -> str:
    """12 hex digits that identify the code of this folder; verdicts of different versions are not comparable."""
    modules = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(module.read_bytes() for module in modules)).hexdigest()[:12]


def grade(answer: str | None, gold: str) -> bool:
    """Whether the keys are equal; if the correct answer is a percentage, its number without the sign is right, too. None is wrong."""
    if answer is None:
        return False
    given, right = canonical_key(answer), canonical_key(gold)
    return given == right or (right.kind == "percent" and CanonicalAnswer(given.key + "%", "percent") == right)
