"""Which askings of an index a filter lets through, and their rows for lists."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints
from urllib.parse import urlencode

import re2

from corewarding.dataflow.errors import UserError

MAX_SEARCH = 300
"""Most letters of a search."""
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


class FilterError(UserError):
    """A filter that means nothing."""


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

    def numbers(self, db: sqlite3.Connection) -> list[int]:
        """Of the askings that fit, in order. FilterError if the search is no expression."""
        where, values = self._asking()
        on_completion, more = self._completion()
        alone = " AND ".join(["c.n = a.n", *on_completion])
        if self.search:
            matches, word = _matcher(db, self.search, is_regex=self.regex)
            own = matches.format("a.id || char(10) || a.wording || char(10) || coalesce(a.labels, '')")
            where.append(
                f"EXISTS (SELECT 1 FROM completions c WHERE {alone} AND ({matches.format('c.text')})) OR "
                f"(({own}) AND EXISTS (SELECT 1 FROM completions c WHERE {alone}))"
            )
            more = [*more, *word, *word, *more]
        elif on_completion:
            where.append(f"EXISTS (SELECT 1 FROM completions c WHERE {alone})")
        conditions = " AND ".join(f"({one})" for one in where) or "1"
        words = f"SELECT n FROM askings a WHERE {conditions} ORDER BY {_ORDERS[self.order]}"
        return [row[0] for row in db.execute(words, [*values, *more])]

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


def _matcher(db: sqlite3.Connection, search: str, *, is_regex: bool) -> tuple[str, list[str]]:
    """The condition that {} holds `search`, and its values."""
    if len(search) > MAX_SEARCH:
        raise FilterError(f"the search has {len(search)} letters; give at most {MAX_SEARCH}")
    if not is_regex:
        return "({}) LIKE ? ESCAPE '!'", ["%" + re.sub(r"([!%_])", r"!\1", search) + "%"]
    options = re2.Options()
    options.case_sensitive, options.log_errors = False, False
    try:
        re2.compile(search, options)  # whose error says why
        found = re2.Set.SearchSet(options)  # with less around each call than a pattern
        found.Add(search)
        found.Compile()
    except re2.error as error:
        raise FilterError(f"{search[:80]!r} is no regular expression: {_told(error)}") from error
    db.create_function("matches", 1, lambda text: bool(found.Match(text)), deterministic=True)
    return "matches(CAST({} AS BLOB))", []


def _told(error: Exception) -> str:
    told = error.args[0] if error.args else ""
    return told.decode(errors="replace") if isinstance(told, bytes) else str(told)


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
