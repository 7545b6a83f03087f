"""A search in the texts of an index. Many are joined and searched in one call, because a call for each costs more than the search.

Both a plain search and a regular expression are RE2's, which takes time linear in the text; upper and lower case are the same.
"""

from __future__ import annotations

import re
import sqlite3
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

import re2

from corewarding.dataflow.errors import UserError

MAX_SEARCH = 300
"""Most letters of a search."""
_TEXTS = 4096
"""Completions that are searched in one call."""
_KNOWS_ENDS = re.compile(r"\\[AzZ]|[$^]")
"""What may ask for the beginning or the end of a text, and so cannot be searched in joined texts."""


class FilterError(UserError):
    """A filter that means nothing."""


class Search:
    """FilterError if it is too long or no regular expression."""

    def __init__(self, search: str, *, is_regex: bool) -> None:
        if len(search) > MAX_SEARCH:
            raise FilterError(f"the search has {len(search)} letters; give at most {MAX_SEARCH}")
        expression = search if is_regex else re2.escape(search)
        options = re2.Options()
        options.case_sensitive, options.log_errors = False, False
        try:
            self._pattern = re2.compile(expression, options)
            self._found = re2.Set.SearchSet(options)  # with less around each call than a pattern
            self._found.Add(expression)
            self._found.Compile()
        except re2.error as error:
            raise FilterError(f"{search[:80]!r} is no regular expression: {_told(error)}") from error
        self._by_itself = is_regex and _KNOWS_ENDS.search(expression) is not None

    def fits(self, text: bytes) -> bool:
        """Whether it is somewhere in this text, of UTF-8."""
        return bool(self._found.Match(text))

    def completions(self, db: sqlite3.Connection) -> list[int]:
        """The rows of `completions` whose text it is in."""
        rows = db.cursor()
        rows.row_factory = None
        rows.execute("SELECT rowid, CAST(text AS BLOB) FROM completions")
        hits: list[int] = []
        while some := rows.fetchmany(_TEXTS):
            numbers, texts = zip(*some, strict=True)
            hits += [numbers[place] for place in self.places(texts)]
        return hits

    def places(self, texts: Sequence[bytes]) -> Iterator[int]:
        """Which of the texts it is in."""
        if self._by_itself:
            yield from (place for place, text in enumerate(texts) if self.fits(text))
            return
        joined = b"\n".join(texts)
        ends = [end - 1 for end in accumulate(len(text) + 1 for text in texts)]
        at = 0
        while at <= len(joined) and (found := self._pattern.search(joined, at)) is not None:
            place = bisect_right(ends, found.start() - 1)
            if found.end() <= ends[place] or self.fits(texts[place]):  # what reaches into the next text is none
                yield place
            at = ends[place] + 1


def _told(error: Exception) -> str:
    told = error.args[0] if error.args else ""
    return told.decode(errors="replace") if isinstance(told, bytes) else str(told)
