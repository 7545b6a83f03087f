"""Which askings of an index a filter lets through, and their rows for lists."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints
from urllib.parse import urlencode

from corewarding.launch.view.search.texts import FilterError, Search, Texts

Fate = Literal["trained", "voted", "withheld", "dropped", "waiting"]
Differ = Literal["views", "sources"]
Order = Literal["update", "newest", "reward", "share"]
_ORDERS: dict[Order, str] = {
    "update": "made IS NULL, made, n",
    "newest": "n DESC",
    "reward": "reward IS NULL, reward, n",
    "share": "share, n",
}
_ROW = (
    "n, id, question, epoch, wording, made, fate, reason, again, labels, abstained, wrong, views_differ, sources_differ, num, "
    "truncated, reward AS mean, share, first, last, swapped, marks"
)
_OWN_WORDS = "SELECT n, CAST(id || char(10) || wording || char(10) || coalesce(labels, '') AS BLOB) FROM askings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What is not None or False must fit. `reward_from`, `reward_to`, `truncated` and `search` must fit the same completion."""

    search: str | None = None  # in completions, wordings, labels and ids; upper and lower case are the same
    regex: bool = False  # `search` is a regular expression of RE2, which takes time linear in the text
    question: str | None = None  # id
    fate: Fate | None = None
    wrong: bool = False  # a label is not the data set's answer
    abstained: bool = False
    differ: Differ | None = None  # the most frequent answers of two groups
    truncated: bool = False
    swapped: bool = False  # weights were swapped within a completion
    update_from: int | None = None
    update_to: int | None = None
    reward_from: float | None = None
    reward_to: float | None = None
    again: bool = False  # also updates that a later start made again
    order: Order = "update"

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Filter:
        """Of the query of a URL, in which 1 stands for true. FilterError for a key or a value that means nothing."""
        hints, values = get_type_hints(cls), dict[str, Any]()
        for name, text in given.items():
            if name not in hints:
                raise FilterError(f"there is no filter {name!r}; there are {', '.join(hints)}")
            try:
                values[name] = _value(hints[name], text)
            except ValueError as error:
                raise FilterError(f"{name}={text[:80]!r} is no value of this filter") from error
        return cls(**values)

    def query(self) -> str:
        """The query of a URL that `of` reads."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        default = Filter()
        words = {
            name: int(value) if value is True else value
            for name, value in given.items()
            if value != getattr(default, name)
        }
        return urlencode(words)

    def numbers(self, db: sqlite3.Connection, texts: Texts | None = None) -> list[int]:
        """Of the askings that fit, in order. texts: of earlier searches in this index. FilterError if the search is no expression."""
        where, values = self._asking()
        on_completion, more = self._completion()
        if on_completion and not self.search:
            where.append(f"EXISTS (SELECT 1 FROM completions c WHERE {' AND '.join(['c.n = a.n', *on_completion])})")
            values += more
        conditions = " AND ".join(f"({one})" for one in where) or "1"
        rows = db.execute(f"SELECT n FROM askings a WHERE {conditions} ORDER BY {_ORDERS[self.order]}", values)
        numbers = [row[0] for row in rows]
        if not self.search:
            return numbers
        found = self._found(db, Search(self.search, is_regex=self.regex), texts or Texts())
        return [n for n in numbers if n in found]

    def _found(self, db: sqlite3.Connection, search: Search, texts: Texts) -> set[int]:
        """Numbers of the askings with a completion that fits and holds the search, or with a completion that fits and the search in
        the asking's own words."""
        on_completion, values = self._completion()
        found = texts.found(db, search, once=not on_completion)
        own = {row[0] for row in db.execute(_OWN_WORDS) if search.is_in(row[1])}
        if not on_completion:
            return own | set(found.values())
        fits = dict(
            db.execute(f"SELECT rowid, n FROM completions c WHERE {' AND '.join(on_completion)}", values).fetchall()
        )
        return (own & set(fits.values())) | {n for row, n in found.items() if row in fits}

    def _asking(self) -> tuple[list[str], list[Any]]:
        conditions: dict[str, Any] = {
            "a.question = ?": self.question,
            "a.fate = ?": self.fate,
            "a.made >= ?": self.update_from,
            "a.made <= ?": self.update_to,
        }
        where = [words for words, value in conditions.items() if value is not None]
        flags = {"a.wrong": self.wrong, "a.abstained": self.abstained, "a.swapped": self.swapped}
        where += [name for name, is_asked in flags.items() if is_asked]
        where += [f"a.{self.differ}_differ"] * (self.differ is not None)
        where += ["NOT a.again"] * (not self.again)
        return where, [value for value in conditions.values() if value is not None]

    def _completion(self) -> tuple[list[str], list[Any]]:
        conditions = {"c.reward >= ?": self.reward_from, "c.reward <= ?": self.reward_to}
        where = [words for words, value in conditions.items() if value is not None]
        return where + ["c.truncated"] * self.truncated, [value for value in conditions.values() if value is not None]


def rows_of(db: sqlite3.Connection, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of these askings, in their order; those that do not exist are left out."""
    marks = ", ".join("?" * len(numbers))
    found = {row["n"]: row for row in db.execute(f"SELECT {_ROW} FROM askings WHERE n IN ({marks})", numbers)}
    return [_row(found[n]) for n in numbers if n in found]


def _row(row: sqlite3.Row) -> dict[str, Any]:
    made = dict(row)
    made["labels"] = json.loads(row["labels"] or "[]")
    made["wording"] = (row["wording"] or "").split("\n")[0][:200]
    for name in ("again", "abstained", "views_differ", "sources_differ", "swapped"):
        made[name] = bool(row[name])
    made["wrong"] = None if row["wrong"] is None else bool(row["wrong"])
    return made


def _value(kind: Any, text: str) -> Any:
    options = get_args(kind)
    if kind is bool or bool in options:
        return {"1": True, "0": False}[text] if text in ("0", "1") else _no(text)
    if int in options:
        return int(text)
    if float in options:
        return float(text)
    literals = [name for option in (kind, *options) for name in get_args(option) if isinstance(name, str)]
    return text if not literals or text in literals else _no(text)


def _no(text: str) -> Any:
    raise ValueError(text)
