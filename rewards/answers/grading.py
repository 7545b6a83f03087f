"""Whether an answer is right, given the correct one: by the same keys that vote, so one policy decides votes, rewards and grades."""

from __future__ import annotations

import hashlib
from pathlib import Path

from corewarding.rewards.answers.key import canonical_key
from corewarding.rewards.answers.structure import Units


def grader_version() -> str:
    """12 hex digits that identify the code of this folder; verdicts of different versions are not comparable."""
    modules = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(module.read_bytes() for module in modules)).hexdigest()[:12]


def grade(answer: str | None, gold: str, *, units: Units = "drop") -> bool:
    """Whether the keys are equal; None is wrong."""
    return answer is not None and canonical_key(answer, units=units) == canonical_key(gold, units=units)
