"""Which completions a search finds: one pass over their texts, which are kept joined in memory.

A call for each text costs more than the search in it. So texts are joined, and the search goes on after the one it was found in.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

import re2

from corewarding.dataflow.errors import UserError

MAX_SEARCH = 300
"""Most letters of a search."""
BLOCK_BYTES, KEPT_BYTES = 2**22, 2**28
"""Of one joined text; and of all that stay in memory. What is beyond is read from the index by every search."""
_ANCHORS = re.compile(r"[\^$]|\\[AzZ]|\(\?")
"""What may mean something else in a joined text: begin and end of a text, and flags."""


class FilterError(UserError):
    """A filter that means nothing."""


class Search:
    """What is looked for: upper and lower case are the same."""

    def __init__(self, words: str, *, is_regex: bool) -> None:
        """is_regex: words are an expression of RE2, which takes time linear in the text. FilterError if they are none."""
        if len(words) > MAX_SEARCH:
            raise FilterError(f"the search has {len(words)} letters; give at most {MAX_SEARCH}")
        expression = words if is_regex else re2.escape(words)
        options = re2.Options()
        options.case_sensitive, options.log_errors = False, False
        try:
            self.pattern = re2.compile(expression, options)
            found = re2.Set.SearchSet(options)  # with less around each call than a pattern
            found.Add(expression)
            found.Compile()
        except re2.error as error:
            raise FilterError(f"{words[:80]!r} is no regular expression: {_told(error)}") from error
        self.is_in: Callable[[bytes], bool] = lambda text: bool(found.Match(text))
        self.goes_over_joined = not is_regex or _ANCHORS.search(words) is None


@dataclass(frozen=True, slots=True)
class Block:
    """Texts of completions in the order of the index, each with a line break behind it."""

    rows: list[int]  # of the index
    numbers: list[int]  # of their askings
    starts: list[int]  # where each text begins; one more: the length of all
    text: bytes

    @classmethod
    def of(cls, found: list[tuple[int, int, bytes]]) -> Block:
        rows, numbers, texts = zip(*found, strict=True)
        starts = [0, *accumulate(len(one) + 1 for one in texts)]
        return cls(list(rows), list(numbers), starts, b"\n".join((*texts, b"")))

    def found(self, search: Search, *, once: bool) -> Iterator[int]:
        """Places of the texts that hold it. once: one of an asking is enough, and those that follow are left out."""
        at, ends = 0, len(self.rows)
        while (at := self._next(search, at)) < ends:
            yield at
            number, at = self.numbers[at], at + 1
            while once and at < ends and self.numbers[at] == number:
                at += 1

    def _next(self, search: Search, at: int) -> int:
        """Place of the first text from `at` on that holds it; the number of texts if none does."""
        ends = len(self.rows)
        if not search.goes_over_joined:
            return next((place for place in range(at, ends) if search.is_in(self._alone(place))), ends)
        while at < ends and (match := search.pattern.search(self.text, self.starts[at])) is not None:
            at = bisect_right(self.starts, match.start()) - 1
            if at >= ends or match.end() < self.starts[at + 1] or search.is_in(self._alone(at)):
                return at
            at += 1
        return ends

    def _alone(self, at: int) -> bytes:
        return self.text[self.starts[at] : self.starts[at + 1] - 1]


class Texts:
    """Of one index, whose completions only become more. Any thread may search."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        """kept_bytes: the most that stay in memory."""
        self._kept_bytes = kept_bytes
        self._blocks: list[Block] = []
        self._lock = threading.Lock()

    @property
    def num_kept(self) -> int:
        """Bytes that stay in memory."""
        return sum(len(block.text) for block in self._blocks)

    def found(self, db: sqlite3.Connection, search: Search, *, once: bool = False) -> dict[int, int]:
        """The completions that hold it: row of the index, and number of the asking. once: not all, but one of each asking at least."""
        return {block.rows[at]: block.numbers[at] for block in self._all(db) for at in block.found(search, once=once)}

    def fill(self, db: sqlite3.Connection) -> None:
        """Takes what is there into memory, so that the first search need not."""
        for _ in self._all(db):
            pass

    def _all(self, db: sqlite3.Connection) -> Iterator[Block]:
        with self._lock:
            kept = list(self._blocks)
        yield from kept
        size, last = sum(len(block.text) for block in kept), kept[-1].rows[-1] if kept else 0
        for block in _blocks(db, after=last):
            size += len(block.text)
            if size <= self._kept_bytes and len(block.text) >= BLOCK_BYTES:
                self._keep(block)
            yield block

    def _keep(self, block: Block) -> None:
        with self._lock:
            if not self._blocks or block.rows[0] > self._blocks[-1].rows[-1]:  # else another thread has kept it
                self._blocks.append(block)


def _blocks(db: sqlite3.Connection, *, after: int) -> Iterator[Block]:
    """The texts of the rows after this one; all blocks but the last have BLOCK_BYTES."""
    found: list[tuple[int, int, bytes]] = []
    size = 0
    query = "SELECT rowid, n, CAST(text AS BLOB) FROM completions WHERE rowid > ? ORDER BY rowid"
    for row, number, text in db.execute(query, (after,)):
        found.append((row, number, text or b""))
        size += len(found[-1][2]) + 1
        if size >= BLOCK_BYTES:
            yield Block.of(found)
            found, size = [], 0
    if found:
        yield Block.of(found)


def _told(error: Exception) -> str:
    told = error.args[0] if error.args else ""
    return told.decode(errors="replace") if isinstance(told, bytes) else str(told)
