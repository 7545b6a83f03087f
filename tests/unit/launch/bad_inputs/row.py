"""A bad input: what a user types, the files that are there, and what the answer must say.

test_bad_inputs.py runs every row in an empty folder: one message, the exit code, no traceback, nothing left behind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

SHIPPED = Path(__file__).resolve().parents[4] / "models" / "arithmetic-base"


@dataclass(frozen=True, slots=True)
class Model:
    """A copy of the shipped model with other contents of some files; None removes one."""

    changed: dict[str, str | bytes | None]


File = str | bytes | Model | None
"""Text, bytes, a model's folder, or None for an empty folder."""


@dataclass(frozen=True, slots=True)
class Bad:
    """One bad input."""

    line: str  # after `corewarding`, as typed into a shell
    says: tuple[str, ...]  # parts of the message: the key or flag, the value, the remedy
    files: dict[str, File] = field(default_factory=dict)
    code: int = 2
    env: dict[str, str] = field(default_factory=dict)


QUESTION = '{"question": "1 + 1?", "answer": "2"}\n'
