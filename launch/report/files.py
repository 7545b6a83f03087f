"""Files that a killed process leaves whole: written under another name first, or cut after the last whole line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

END_BYTES = 2**18
"""Much longer than a row of metrics.jsonl."""


def write_whole(path: Path, text: str) -> None:
    """Writes the file, on the disk and under its name at once: whoever reads it finds the old text or the new."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def drop_torn_line(path: Path) -> None:
    """Cuts off a last line without its end: a killed process may have written half of it. A missing file stays missing."""
    if path.is_file():
        with path.open("rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a JSONL file, one a line. Lines that are none, left by a full disk or a lost power supply, are left out."""
    return rows_in(path.read_bytes()) if path.is_file() else []


def first_and_last_rows(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows in the first and in the last END_BYTES of a JSONL file, so that a long file costs no more than a short one."""
    if not path.is_file():
        return [], []
    with path.open("rb") as file:
        first = file.read(END_BYTES)
        file.seek(max(0, file.seek(0, os.SEEK_END) - END_BYTES))
        return rows_in(first), rows_in(file.read())


def rows_in(content: bytes) -> list[dict[str, Any]]:
    """The JSON objects among these lines."""
    rows = []
    for line in content.split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
