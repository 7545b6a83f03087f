"""`corewarding samples`: the same samples as text, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from corewarding.launch.report.plain import plain
from corewarding.launch.view.details import asking
from corewarding.launch.view.filters import Filter, rows_of
from corewarding.launch.view.run import ViewedRun

MAX_ANSWER = 60


def lines(run: ViewedRun, wanted: Filter, *, limit: int | None, letters: int | None) -> Iterator[str]:
    """The askings that fit, one after the other, and how many there are. letters: of each completion's text; None: all."""
    numbers = wanted.numbers(run.db)
    for n in numbers[:limit]:
        yield from _asking(run, n, letters)
        yield ""
    kept = "" if limit is None or len(numbers) <= limit else f", {limit} of them shown (--limit)"
    yield f"{len(numbers)} question{'s'[: len(numbers) != 1]}{kept}; {len(Filter().numbers(run.db))} in the journal of {run.name}"


def rows(run: ViewedRun, wanted: Filter, *, limit: int | None) -> Iterator[dict[str, Any]]:
    """The askings that fit, JSON-ready, with groups and completions."""
    for n in wanted.numbers(run.db)[:limit]:
        (row,) = rows_of(run.db, [n])
        yield row | {"groups": asking(run, n)["groups"]}


def _asking(run: ViewedRun, n: int, letters: int | None) -> Iterator[str]:
    found = asking(run, n)
    made = found["fate"] if found["made"] is None else f"update {found['made']}"
    yield f"{_shown(found['id'])}  {made}{'  made again' if found['again'] else ''}"
    for view, wording in found["wordings"].items():
        if wording:
            yield f"  {view}: {_shown(wording, 500)}"
    if found["gold"] is not None:
        yield f"  data set's answer: {_shown(found['gold'])}"
    for group in found["groups"]:
        yield from _group(group, found["gold_key"], letters)


def _group(group: dict[str, Any], gold_key: str | None, letters: int | None) -> Iterator[str]:
    vote = group["vote"]
    votes = ", ".join(f"{_shown(answer)} x {len(indices)}" for answer, indices in vote["classes"]) or "no answer"
    yield f"  {group['source']}, {group['view']}: {votes} (share {vote['share']:.2f})"
    if group["scored"]:
        voters = f", from {', '.join(group['heard'])}" if group["heard"] else ""
        if group["label"] is not None:
            judged = "" if gold_key is None else ", right" if group["label_key"] == gold_key else ", wrong"
            yield f"    label {_shown(group['label'])}{judged}{voters}"
        elif group["abstained"]:
            yield f"    no label: {group['why_abstained']}{voters}"
    for one in group["completions"]:
        versions = f"v{one['first']}" if one["first"] == one["last"] else f"v{one['first']}-v{one['last']}"
        words = [
            f"    #{one['i']}",
            "no answer" if one["answer"] is None else f"answer {_shown(one['answer'])}",
            "" if one["reward"] is None else f"reward {one['reward']:.2f}",
            "" if one["advantage"] is None else f"advantage {one['advantage']:+.2f}",
            one["fate"] if one["reason"] is None else f"{one['fate']}: {one['reason']}",
            f"{one['tokens']} tokens",
            versions,
            "truncated" if one["truncated"] else "",
        ]
        yield "  ".join(filter(None, words))
        text = one["text"] if letters is None or len(one["text"]) <= letters else one["text"][:letters] + " ..."
        yield from (f"       {plain(line, keep='')}" for line in text.split("\n"))


def _shown(text: str, most: int = MAX_ANSWER) -> str:
    return plain(text if len(text) <= most else text[:most] + "...", keep="")
