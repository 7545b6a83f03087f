"""Rephrasings of a data set on disk: the journal of attempts, the report, and the pair of files that training reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corewarding.dataflow.errors import UserError
from corewarding.questions.readers import Entry
from corewarding.questions.settings import DEFAULT_SYSTEM_PROMPT

SHOWN = 3  # examples of each reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One reply to one question."""

    id: str
    attempt: int
    kept: bool
    reason: str  # why it was refused; empty if kept
    detail: str
    text: str  # the kept wording, or the refused reply


class Journal:
    """All attempts, in OUT/journal.jsonl; a second call continues from it."""

    def __init__(self, out: Path, header: dict[str, Any]) -> None:
        """UserError if `out` holds other files, or a journal of other questions, another model or prompt."""
        self.path = out / "journal.jsonl"
        self.attempts: list[Attempt] = []
        if self.path.is_file():
            first, *lines = self.path.read_text(encoding="utf-8").split("\n")[:-1] or [""]
            try:
                saved = json.loads(first) if first else {}
            except json.JSONDecodeError:
                saved = {}
            changed = [key for key in header if saved.get(key) != header[key]]
            if changed:
                raise UserError(
                    f"{out} holds rephrasings made with other settings (it differs in {', '.join(changed)}); choose another --out"
                )
            for number, line in enumerate(lines, start=2):
                try:
                    self.attempts.append(Attempt(**json.loads(line)))
                except (ValueError, TypeError) as error:
                    raise UserError(f"{self.path}: line {number} is damaged ({error}); remove the line") from error
            self.path.write_text(
                "".join(line + "\n" for line in [first, *lines]), encoding="utf-8"
            )  # drops a line that was cut off
        elif out.is_dir() and any(out.iterdir()):
            raise UserError(f"--out {out} is not empty and holds no rephrasings; choose another folder")
        else:
            try:
                out.mkdir(parents=True, exist_ok=True)
                self.path.write_text(json.dumps(header) + "\n", encoding="utf-8")
            except OSError as error:
                raise UserError(f"--out {out} cannot be written: {error.strerror}; choose another folder") from error

    def add(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)
        row = {name: getattr(attempt, name) for name in attempt.__slots__}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def kept(self) -> dict[str, str]:
        """Kept wordings by question id."""
        return {attempt.id: attempt.text for attempt in self.attempts if attempt.kept}


def report(entries: Sequence[Entry], journal: Journal) -> dict[str, Any]:
    """Counts of kept and refused replies, with examples of each reason."""
    kept = journal.kept()
    refused = [attempt for attempt in journal.attempts if not attempt.kept]
    return {
        "questions": len(entries),
        "kept": len(kept),
        "left_out": [entry.id for entry in entries if entry.id not in kept],
        "replies": len(journal.attempts),
        "refused": dict(Counter(attempt.reason for attempt in refused).most_common()),
        "examples": {
            reason: [f"{a.id}: {a.detail}" for a in refused if a.reason == reason][:SHOWN]
            for reason in {attempt.reason: None for attempt in refused}
        },
    }


def write_pair(entries: Sequence[Entry], kept: dict[str, str], source: str, out: Path) -> None:
    """Writes both views of the questions in `kept` to `out`, row by row, in verl's schema."""
    import pyarrow
    import pyarrow.parquet

    rows = [entry for entry in entries if entry.id in kept]
    numbered = all(entry.id.isdecimal() and entry.id == str(int(entry.id)) for entry in rows)
    for name, wordings in (("original", [e.text for e in rows]), ("rephrased", [kept[e.id] for e in rows])):
        columns = [
            {
                "data_source": source,
                "prompt": [
                    {"role": "system", "content": DEFAULT_SYSTEM_PROMPT},
                    {"role": "user", "content": wording},
                ],
                "ability": "math",
                "reward_model": {"ground_truth": entry.answer, "style": "rule"},
                "extra_info": {"index": int(entry.id) if numbered else entry.id, "split": "train"},
            }
            for entry, wording in zip(rows, wordings, strict=True)
        ]
        path = out / f"{name}.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(columns), path.with_suffix(".partial"))
        path.with_suffix(".partial").replace(path)
