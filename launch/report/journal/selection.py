"""Which lines of a journal are shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from corewarding.dataflow.ids import AskedId, Source
from corewarding.launch.report.journal.departures import Departure, Fate, Left


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What is not None must fit."""

    question: str | None = None  # its id, or its id and epoch as in q/e0
    update: int | None = None
    fate: Fate | None = None
    source: Source | None = None
    with_made_again: bool = False

    def completions(self, departure: Departure) -> Iterator[Left]:
        if self._is_asked_for(departure.asked):
            for one in departure.left:
                if self._fits(one.fate, one.update, one.made_again) and self.source in (None, one.completion.id.source):
                    yield one

    def is_shown(self, departure: Departure) -> bool:
        """Whether its question is, in a list of questions."""
        return (
            not departure.is_refused
            and self._is_asked_for(departure.asked)
            and self._fits(departure.fate, departure.update, departure.made_again)
        )

    def _is_asked_for(self, asked: AskedId) -> bool:
        return self.question in (None, asked.question_id, str(asked))

    def _fits(self, fate: Fate, update: int | None, made_again: bool) -> bool:
        return self.fate in (None, fate) and self.update in (None, update) and (self.with_made_again or not made_again)
