"""Which examples did two runs train on, and in which update.

Both journals are read side by side, update by update. In memory are the examples that only one of them has trained on so far.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from corewarding.dataflow.ids import CompletionId
from corewarding.launch.report.journal.fates import Fates
from corewarding.launch.report.journal.survey import survey
from corewarding.launch.report.plain import plain

KINDS = {
    "same": "in both, in the same update, with the same tokens",
    "other_tokens": "in both, in the same update, with other tokens",
    "other_update": "in both, in different updates",
    "only_run": "only in {run}",
    "only_other": "only in {other}",
}


@dataclass(frozen=True, slots=True)
class Example:
    """A completion that a run trained on."""

    id: CompletionId
    update: int
    tokens: bytes  # digest of the token ids


def difference_lines(
    run: Path, run_journal: Path, other: Path, other_journal: Path, *, limit: int, as_json: bool
) -> Iterator[str]:
    """The first differing examples, then the counts. limit: the most examples. JournalError for damage."""
    counts: Counter[str] = Counter()
    for kind, ours, theirs in _pairs(run_journal, other_journal):
        counts[kind] += 1
        if kind != "same" and counts.total() - counts["same"] <= limit:
            yield _example(kind, ours, theirs, run, other, as_json)
    matched = counts["same"] + counts["other_tokens"] + counts["other_update"]
    trained = matched + counts["only_run"], matched + counts["only_other"]
    if as_json:
        row = {kind: counts[kind] for kind in KINDS}
        yield json.dumps({"kind": "difference", "run": trained[0], "other": trained[1], **row})
        return
    yield plain(f"{run} trained on {trained[0]} examples, {other} on {trained[1]}", keep="")
    width = len(str(max(counts.values(), default=0)))
    for kind, words in KINDS.items():
        yield plain(f"{counts[kind]:>{width}}  {words.format(run=run, other=other)}", keep="")


def _example(kind: str, ours: Example | None, theirs: Example | None, run: Path, other: Path, as_json: bool) -> str:
    example = ours or theirs
    assert example is not None
    if as_json:
        row: dict[str, Any] = {"kind": kind, "id": str(example.id)}
        row |= {
            "update": None if ours is None else ours.update,
            "other_update": None if theirs is None else theirs.update,
        }
        return json.dumps(row)
    where = [f"update {one.update} in {name}" for name, one in ((run, ours), (other, theirs)) if one is not None]
    told = KINDS[kind].format(run=run, other=other)
    return plain(f"{example.id}  {told}: {', '.join(where)}", keep="")


def _pairs(run: Path, other: Path) -> Iterator[tuple[str, Example | None, Example | None]]:
    """(kind, the example in the one run, in the other one), each example once."""
    alone: tuple[dict[CompletionId, Example], dict[CompletionId, Example]] = {}, {}
    for both in zip_longest(_updates(run), _updates(other), fillvalue=()):
        for example in both[0]:
            alone[0][example.id] = example
        for theirs in both[1]:
            if (ours := alone[0].pop(theirs.id, None)) is None:
                alone[1][theirs.id] = theirs
            else:
                yield _kind(ours, theirs), ours, theirs
        for example in both[0]:
            if example.id in alone[0] and (match := alone[1].pop(example.id, None)) is not None:
                yield _kind(example, match), alone[0].pop(example.id), match
    yield from (("only_run", example, None) for example in alone[0].values())
    yield from (("only_other", None, example) for example in alone[1].values())


def _updates(journal: Path) -> Iterator[list[Example]]:
    """What counts of each update, in order."""
    trained = (
        Example(left.completion.id, departure.update, left.completion.tokens)
        for departure in Fates(journal, survey(journal))
        for left in departure.left
        if departure.update is not None and left.fate == "trained" and not left.made_again
    )
    for _, examples in groupby(trained, key=lambda example: example.update):
        yield list(examples)


def _kind(ours: Example, theirs: Example) -> str:
    if ours.update != theirs.update:
        return "other_update"
    return "same" if ours.tokens == theirs.tokens else "other_tokens"
