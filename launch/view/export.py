"""`corewarding view --out`: the page with its samples in one file, which opens from a disk and asks for nothing.

The samples are the same JSON that the server answers, deflated and in base64. The scripts are our modules, one after the other; the
policy of the page names the checksum of what may run and be shown, and allows no request at all.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from corewarding.dataflow.ids import SOURCES, VIEWS
from corewarding.launch.report.files import write_whole
from corewarding.launch.report.tables.output import json_line
from corewarding.launch.view.details import asking, tokens
from corewarding.launch.view.live.live import LiveRun, board
from corewarding.launch.view.run import ViewedRun
from corewarding.launch.view.search.filters import Filter, rows_of
from corewarding.launch.view.server import PAGE

_LIVE = ("svg", "chart", "curves", "lanes", "strip", "top", "panel", "page")
MODULES = ("dom", "state", "file", "tokens", "filters", "list", "question", *(f"live/{name}" for name in _LIVE), "main")
"""The page's scripts, each after those that it imports; `file` stands for `source`."""
STYLES = ("style", "live/live")
_IMPORT = re.compile(r"^import \{[^}]*\} from \"\.{1,2}/[a-z/]+\.js\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function|const)", re.MULTILINE)


def chosen(run: ViewedRun, wanted: Filter, most: int) -> list[int]:
    """Askings that fit, with at most `most` completions in all, evenly over what fits."""
    numbers = wanted.numbers(run.db)
    sizes = dict(run.db.execute("SELECT n, num FROM askings"))
    total = sum(sizes[n] for n in numbers)
    if total <= most:
        return numbers
    found, taken, share = [], 0, most / total
    seen = 0
    for n in numbers:
        seen += sizes[n]
        if taken + sizes[n] <= seen * share:
            found.append(n)
            taken += sizes[n]
    return found


def write_page(out: Path, runs: Sequence[ViewedRun], wanted: Filter, most: int) -> tuple[int, int]:
    """Writes the file; returns its bytes and its completions. most: completions of each run."""
    held = {run.name: _samples(run, chosen(run, wanted, most)) for run in runs}
    content = {"runs": held, "board": board(runs)}
    data = base64.b64encode(zlib.compress(json_line(content).encode(), 9)).decode()
    style = "\n".join((PAGE / f"{name}.css").read_text(encoding="utf-8") for name in STYLES)
    page = _page(script="\n".join(_scripts()), style=style, data=data)
    write_whole(out, page)
    return len(page.encode()), sum(row["num"] for one in held.values() for row in one["rows"])


def _samples(run: ViewedRun, numbers: Sequence[int]) -> dict[str, Any]:
    rows = [row for at in range(0, len(numbers), 500) for row in rows_of(run.db, numbers[at : at + 500])]
    askings = [asking(run, n) for n in numbers]
    about = run.about() | {"askings": len(rows), "completions": sum(row["num"] for row in rows)}
    sampled = {str(one["n"]): _tokens(run, one) for one in askings}
    return {"about": about, "rows": rows, "askings": askings, "tokens": sampled, "live": LiveRun(run).content()}


def _tokens(run: ViewedRun, one: dict[str, Any]) -> dict[str, Any]:
    kinds = {(group["view"], group["source"]) for group in one["groups"]}
    return {
        f"{view}/{source}": tokens(run, one["n"], view, source)
        for view in VIEWS
        for source in SOURCES
        if (view, source) in kinds
    }


def _scripts() -> Iterator[str]:
    for name in MODULES:
        text = (PAGE / f"{name}.js").read_text(encoding="utf-8")
        yield _EXPORT.sub("", _IMPORT.sub("", text))


def _page(*, script: str, style: str, data: str) -> str:
    policy = f"default-src 'none'; script-src {_checksum(script)}; style-src {_checksum(style)}; base-uri 'none'; form-action 'none'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>corewarding view</title>
<style>{style}</style>
</head>
<body>
<noscript>This page needs JavaScript.</noscript>
<script type="application/octet-stream" id="samples">{data}</script>
<script type="module">{script}</script>
</body>
</html>
"""


def _checksum(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
