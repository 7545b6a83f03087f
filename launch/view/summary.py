"""The row of one asking in the index, made of its groups and completions."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from corewarding.dataflow.ids import SOURCES, VIEWS
from corewarding.launch.view.facts import Facts

_FATES = ("trained", "withheld", "dropped", "voted", "waiting")
"""An asking's fate is the first of these that became of one of its completions."""
ORDER = "CASE view WHEN 'original' THEN 0 ELSE 1 END, CASE source WHEN 'policy' THEN 0 ELSE 1 END"
"""The order of the groups of an asking."""


def summarize(db: sqlite3.Connection, n: int, facts: Facts) -> None:
    """Writes the row of asking `n` anew."""
    groups = db.execute(f"SELECT * FROM groups WHERE n = ? ORDER BY {ORDER}", (n,)).fetchall()
    rows = db.execute(
        "SELECT view, source, answer, key, truncated, first, last, fate, reason, reward FROM completions "
        f"WHERE n = ? ORDER BY {ORDER}, i",
        (n,),
    ).fetchall()
    (question,) = db.execute("SELECT question FROM askings WHERE n = ?", (n,)).fetchone()
    scored = [group for group in groups if group["scored"]]
    gold = facts.answer_of(question)
    wrong = [
        facts.key(group["label"]) != facts.key(gold)
        for group in scored
        if gold is not None and group["label"] is not None
    ]
    tops = {(group["view"], group["source"]): group["top"] for group in groups}
    rewards = [row["reward"] for row in rows if row["reward"] is not None]
    heard = {kind for group in scored for kind in facts.voters_of((group["view"], group["source"]))}
    shares = [
        json.loads(group["vote"])["share"] for group in groups if not heard or (group["view"], group["source"]) in heard
    ]
    chief = next(fate for fate in _FATES if any(row["fate"] == fate for row in rows))
    values: dict[str, Any] = {
        "fate": chief,
        "reason": next((row["reason"] for row in rows if row["fate"] == chief), None),
        "labels": json.dumps([group["label"] for group in scored]),
        "abstained": any(group["abstained"] for group in scored),
        "wrong": any(wrong) if wrong else None,
        "views_differ": any(_differ(tops, [(view, source) for view in VIEWS]) for source in SOURCES),
        "sources_differ": any(_differ(tops, [(view, source) for source in SOURCES]) for view in VIEWS),
        "num": len(rows),
        "truncated": sum(row["truncated"] for row in rows),
        "reward": sum(rewards) / len(rewards) if rewards else None,
        "share": min(shares, default=None),
        "first": min(row["first"] for row in rows),
        "last": max(row["last"] for row in rows),
        "swapped": any(row["first"] != row["last"] for row in rows),
        "marks": _marks(groups, rows, facts),
    }
    db.execute(f"UPDATE askings SET {', '.join(f'{name} = ?' for name in values)} WHERE n = ?", (*values.values(), n))


def _differ(tops: dict[tuple[str, str], str | None], kinds: Sequence[tuple[str, str]]) -> bool:
    """Whether two groups with answers have other most frequent answers."""
    found = {tops[kind] for kind in kinds if tops.get(kind) is not None}
    return len(found) > 1


def _marks(groups: Sequence[sqlite3.Row], rows: Sequence[sqlite3.Row], facts: Facts) -> str:
    """A letter for each completion, groups parted by a space: 1 the label's answer (or its group's most frequent one), 0 another
    answer, - none."""
    label = next((facts.key(group["label"]) for group in groups if group["label"] is not None), None)
    parts = []
    for group in groups:
        kind, wanted = (group["view"], group["source"]), label or group["top"]
        letters = [
            "-" if row["key"] is None else "01"[row["key"] == wanted]
            for row in rows
            if (row["view"], row["source"]) == kind
        ]
        parts.append("".join(letters))
    return " ".join(parts)
