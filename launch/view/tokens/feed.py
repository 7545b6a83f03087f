"""Reads a run's token log from where the reading stopped: the places of its entries go into the index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from corewarding.launch.view.facts import Facts
from corewarding.launch.view.index import Index
from corewarding.launch.view.tail import BEGIN, fingerprint, payloads
from corewarding.learner.replay.journal.segments import JournalError, Position
from corewarding.learner.token_log.entries import folders, from_bytes


class TokenFeed:
    """A part of the index's one writer."""

    def __init__(self, index: Index, facts: Facts, tokens: Path) -> None:
        self._index, self._facts, self._tokens = index, facts, tokens
        self._damaged: set[Path] = set()

    def catch_up(self, *, stop: Callable[[], bool] = lambda: False) -> None:
        """Reads what is new. Damage becomes a note, and what is before it stays. stop: ends it before the end."""
        for folder in folders(self._tokens):
            if folder in self._damaged:
                continue
            try:
                self._read(folder, stop)
            except JournalError as error:
                self._damaged.add(folder)
                self._facts.notes.append(f"importance weights of some tokens are not shown: {error}")

    def _read(self, folder: Path, stop: Callable[[], bool]) -> None:
        name = folder.relative_to(self._tokens).as_posix()
        key = f"tokens/{name}"
        segment, offset, mark = self._index.value(key, (BEGIN.segment, BEGIN.offset, ""))
        place = Position(segment, offset)
        if place != BEGIN and fingerprint(folder, place) != mark:  # removed, or made anew
            self._index.forget_token_entries(name)
            place = BEGIN
        begin, rows = place, []
        try:
            for at, after, payload in payloads(folder, place):
                entry = from_bytes(payload)
                rows.append((str(entry.asked), entry.update, name, at.segment, at.offset))
                place = after
                if stop():
                    break
        finally:
            if place != begin:
                self._index.add_token_entries(rows)
                self._index.keep(**{key: (place.segment, place.offset, fingerprint(folder, place))})
                self._index.db.commit()
