"""Reads recorded completions: JSONL objects with `question` and `completions`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from corewarding.dataflow.carriers import Int32
from corewarding.dataflow.errors import UserError

Recorded = str | Int32
"""A completion as text, to which end-of-sequence is added, or as the tokens that were sampled."""


class RecordingsError(UserError):
    """A file of recorded completions that cannot be replayed."""


def read_recordings(path: str | Path) -> dict[str, list[Recorded]]:
    """Completions by question, with white space folded. A completion is a text or a list of token ids.

    RecordingsError, with the line number, for an object without a question or a completion.
    """
    recordings: dict[str, list[Recorded]] = {}
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            record = json.loads(line)
            texts = record.get("completions") if isinstance(record, dict) else None
            if not texts or not isinstance(texts, list) or not isinstance(record.get("question"), str):
                raise RecordingsError(
                    f"engine.script={path}, line {number}: must have `question` and at least one of `completions`"
                )
            recordings[folded(record["question"])] = [
                np.array(one, np.int32) if isinstance(one, list) else str(one) for one in texts
            ]
    if not recordings:
        raise RecordingsError(f"engine.script={path} is empty")
    return recordings


def folded(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())
