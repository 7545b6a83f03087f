"""One run as the viewer holds it: its facts, its index, and the thread that fills the index."""

from __future__ import annotations

import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from corewarding.dataflow.errors import UserError
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.view.facts import Facts
from corewarding.launch.view.feed import Feed
from corewarding.launch.view.index import Index
from corewarding.launch.view.search.texts import Texts
from corewarding.launch.view.tokens.feed import TokenFeed
from corewarding.launch.view.tokens.texts import find_tokenizer

NO_JOURNAL = (
    "there are no samples to show: the run has asked no question yet, or keeps no journal (journal.retain: off)"
)
FOLLOW_S = 1.0
"""Seconds between two looks at the journal of a run that may still write it."""

FILL_AFTER_S = 2.0
"""The page comes first; then its texts are taken into memory for the first search."""
SWITCH_S = 5e-4
"""After so long the thread that fills an index lets one that answers the page go on; Python's own 5 ms add up to a second."""


class ViewedRun:
    """A run folder, whose journal may not be there yet. `read` or `start` fill its index."""

    def __init__(self, run: Path, journal: Path) -> None:
        where = run.resolve()
        self.run_dir = RunDir(where.parent, where.name)
        self.path, self.name, self.journal = run, where.name, journal
        self.facts = Facts.of(self.run_dir)
        self.index = Index(where, journal)
        self.texts = Texts()
        self.tokenizer: Tokenizer | None = None
        self.is_read = False  # all that the journal held when it was opened is in the index
        self.problem: str | None = None  # what ended the reading
        self.follows = False  # whether the journal is read on, beyond what it held when it was opened
        self._readers = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    def read(self, *, follow: bool = False) -> None:
        """Fills the index up to the end of the journal; follow: and goes on until `close`."""
        try:
            self.tokenizer = find_tokenizer(self.run_dir, self.facts.model_path)
        except UserError as error:
            self.facts.notes.append(str(error))
        if self.tokenizer is None:
            self.facts.notes.append("no tokenizer of the model is on this machine: tokens are not shown one by one")
        self.facts.read_questions(self.run_dir)
        feed = Feed(self.index, self.facts, self.journal)
        token_feed = TokenFeed(self.index, self.facts, self.run_dir.tokens)
        try:
            feed.catch_up(stop=self._ends.is_set)
            feed.judge_again()
            token_feed.catch_up(stop=self._ends.is_set)
            self.is_read = True
            if self._thread is not None and not self._ends.wait(FILL_AFTER_S):
                self.texts.fill(self.index.db)
            while follow and not self._ends.wait(FOLLOW_S):
                feed.catch_up(stop=self._ends.is_set)
                token_feed.catch_up(stop=self._ends.is_set)
        except UserError as error:
            self.problem = str(error)
        except sqlite3.OperationalError as error:  # a full disk, for example
            self.problem = f"{self.index.path} cannot be written: {error}; make room, and open the run again"

    def start(self, *, follow: bool) -> None:
        """Fills the index in a thread of its own."""
        self.follows = follow
        sys.setswitchinterval(SWITCH_S)
        self._thread = threading.Thread(target=self.read, kwargs={"follow": follow}, name=f"index of {self.name}")
        self._thread.start()

    def close(self) -> None:
        self._ends.set()
        if self._thread is not None:
            self._thread.join()
        for db in self._opened:
            db.close()
        self.index.close()

    @property
    def db(self) -> sqlite3.Connection:
        """The calling thread's connection to the index."""
        if not hasattr(self._readers, "db"):
            self._readers.db = self.index.reader()
            self._opened.append(self._readers.db)
        found: sqlite3.Connection = self._readers.db
        return found

    def about(self) -> dict[str, Any]:
        """What the page says of the run as a whole."""
        query = "SELECT count(*), coalesce(sum(num), 0), min(made), max(made) FROM askings"
        num, completions, first, last = self.db.execute(query).fetchone()
        facts = self.facts
        return {
            "name": self.name,
            "rule": facts.rule_name,
            "askings": num,
            "completions": completions,
            "updates": [first, last],
            "planned": facts.updates,
            "has_answers": len(facts.gold) > 0,
            "is_read": self.is_read,
            "problem": self.problem,
            "notes": [*facts.notes, *([] if self.journal.is_dir() else [NO_JOURNAL])],
        }
