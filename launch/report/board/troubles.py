"""What is seen in a run, what it means, and which knob to turn: the rows of troubles.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("troubles.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One row. `see`, `means` and `turn` are Markdown without links."""

    page: str  # staleness or monitoring: the page of docs/ that has the row
    see: str
    means: str
    turn: str
    charts: tuple[str, ...]  # titles of the charts that show it

    @property
    def row(self) -> str:
        """As a row of a table in Markdown."""
        return f"| {self.see} | {self.means} | {self.turn} |"


@cache
def troubles() -> tuple[Trouble, ...]:
    """All rows, in the order of troubles.toml."""
    content: dict[str, list[dict[str, Any]]] = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return tuple(
        Trouble(page=page, charts=tuple(row["charts"]), see=row["see"], means=row["means"], turn=row["turn"])
        for page, rows in content.items()
        for row in rows
    )
