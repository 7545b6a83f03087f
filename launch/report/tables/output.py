"""One way for every command to print its rows: a table for people, or for `--json` one JSON object on each line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import tyro
from rich.console import Console, RenderableType

from corewarding.launch.report.terminal import PlainConsole, output_console

JsonFlag: TypeAlias = tyro.conf.FlagCreatePairsOff[bool]
"""Type of a command's `json` argument. With it, standard output holds nothing but JSON lines."""
WIDEST = 1000
"""Letters in a line of a wide table, which takes only what it needs."""


def json_line(row: Mapping[str, Any]) -> str:
    """The row as JSON in one line. ASCII only, so no text of a model reaches a terminal; numbers that are not finite are null."""
    return json.dumps(_finite(row), allow_nan=False)


def print_rows(
    rows: Iterable[Mapping[str, Any]], table: Callable[[], RenderableType], *, as_json: bool, wide: bool = False
) -> None:
    """Prints the rows as JSON lines, or the table, which is made only then. wide: no cell is cut or wrapped, however narrow the
    terminal."""
    if as_json:
        for row in rows:
            print(json_line(row), flush=True)
    else:
        console = output_console()
        console.width = WIDEST if wide else console.width
        console.print(table())


def people_console(*, as_json: bool) -> Console:
    """Where a command says what is for people: standard error if standard output belongs to JSON lines."""
    return PlainConsole(soft_wrap=True, stderr=as_json)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(its) for key, its in value.items()}
    return [_finite(one) for one in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
