"""The index of a run's samples: an SQLite file beside the journal with one row for each asking, group and completion.

It holds what lists and filters need, the texts included; tokens stay in the journal, and a group's row says where. The file may be
removed at any time and is made again. One process writes; any number of threads read.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from corewarding.launch.view.tail import BEGIN, fingerprint
from corewarding.learner.replay.journal.segments import Position

FORMAT = 2
FILE = "view.sqlite"
_TABLES = """
CREATE TABLE about(name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE askings(
  n INTEGER PRIMARY KEY, id TEXT, question TEXT, epoch INT, wording TEXT, made INT, fate TEXT, reason TEXT, again INT DEFAULT 0,
  labels TEXT, abstained INT, wrong INT, views_differ INT, sources_differ INT, num INT, truncated INT, reward REAL, share REAL,
  first INT, last INT, swapped INT, marks TEXT);
CREATE INDEX askings_id ON askings(id);
CREATE INDEX askings_question ON askings(question);
CREATE INDEX askings_made ON askings(made);
CREATE TABLE groups(
  n INT, view TEXT, source TEXT, segment INT, offset INT, vote TEXT, top TEXT, scored INT DEFAULT 0, label TEXT,
  abstained INT DEFAULT 0, PRIMARY KEY (n, view, source)) WITHOUT ROWID;
CREATE TABLE completions(
  n INT, view TEXT, source TEXT, i INT, answer TEXT, key TEXT, tokens INT, truncated INT, first INT, last INT, fate TEXT, reason TEXT,
  reward REAL, advantage REAL, weight REAL, text TEXT);
CREATE INDEX completions_place ON completions(n, view, source, i);
CREATE TABLE token_log(asked TEXT, made INT, folder TEXT, segment INT, offset INT);
CREATE INDEX token_log_asked ON token_log(asked, made);
"""


class Index:
    """The file, opened by its one writer."""

    def __init__(self, run: Path, journal: Path) -> None:
        """Opens the index of a run, and empties it if it is of another journal or format. Where another viewer fills it, or nothing
        can be written, the index is one of its own in a temporary folder."""
        self._journal = journal
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._lock = os.open(run, os.O_RDONLY)
        self.path = run / FILE
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.db = self._opened()
        except (OSError, sqlite3.OperationalError):
            self._temporary = tempfile.TemporaryDirectory(prefix="corewarding-view-")
            self.path = Path(self._temporary.name) / FILE
            self.db = self._opened()

    def close(self) -> None:
        self.db.close()
        os.close(self._lock)
        if self._temporary is not None:
            self._temporary.cleanup()

    def reader(self) -> sqlite3.Connection:
        """A connection of the calling thread, which cannot write."""
        db = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, check_same_thread=False)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA mmap_size=2147483648")
        return db

    def value(self, name: str, default: Any) -> Any:
        """One of the facts about the journal that the writer keeps."""
        row = self.db.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return default if row is None else json.loads(row[0])

    def keep(self, **values: Any) -> None:
        rows = [(name, json.dumps(value)) for name, value in values.items()]
        self.db.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", rows)

    @property
    def place(self) -> Position:
        """Where the reading of the journal goes on."""
        return Position(*self.value("place", (BEGIN.segment, BEGIN.offset)))

    def commit(self, place: Position) -> None:
        self.keep(place=(place.segment, place.offset), journal=fingerprint(self._journal, place))
        self.db.commit()

    def add_asking(self, asked_id: str, question: str, epoch: int, wording: str) -> int:
        words = "INSERT INTO askings(id, question, epoch, wording, fate) VALUES (?, ?, ?, ?, 'waiting')"
        number = self.db.execute(words, (asked_id, question, epoch, wording)).lastrowid
        assert number is not None
        return number

    def add_group(
        self, n: int, kind: Sequence[str], place: Position, vote: dict[str, Any], top: str | None, rows: Iterable[Any]
    ) -> None:
        """rows: of its completions, (i, answer, key, tokens, truncated, first, last, text)."""
        self.db.execute(
            "INSERT INTO groups(n, view, source, segment, offset, vote, top) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (n, *kind, place.segment, place.offset, json.dumps(vote), top),
        )
        self.db.executemany(
            "INSERT INTO completions(n, view, source, i, answer, key, tokens, truncated, first, last, text, fate) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting')",
            [(n, *kind, *row) for row in rows],
        )

    def add_token_entries(self, rows: Iterable[Any]) -> None:
        """rows: (asked, update, folder in the token log, segment, offset)."""
        self.db.executemany("INSERT INTO token_log VALUES (?, ?, ?, ?, ?)", rows)

    def forget_token_entries(self, folder: str) -> None:
        self.db.execute("DELETE FROM token_log WHERE folder = ?", (folder,))

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, check_same_thread=False)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=OFF")  # the journal is the truth
            if not self._is_current(db):
                names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                for name in names:
                    db.execute(f'DROP TABLE "{name}"')
                db.executescript(_TABLES)
                db.execute("INSERT INTO about VALUES ('format', ?)", (str(FORMAT),))
                db.commit()
        except sqlite3.OperationalError:
            db.close()
            raise
        except sqlite3.DatabaseError:  # some other file, or one that a killed process left damaged
            db.close()
            self.path.unlink()
            return self._opened()
        return db

    def _is_current(self, db: sqlite3.Connection) -> bool:
        with suppress(sqlite3.OperationalError):
            about = {row[0]: json.loads(row[1]) for row in db.execute("SELECT name, value FROM about")}
            if about.get("format") == FORMAT:
                place = Position(*about.get("place", (0, 0)))
                return bool(about.get("journal", "") == fingerprint(self._journal, place))
        return False
