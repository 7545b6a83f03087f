"""The terminal of a run: a table of updates with lines that stay, and below them a progress line. A log file gets plain lines."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, Self

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from corewarding.launch.report.plain import plain
from corewarding.launch.report.progress import progress_bar
from corewarding.launch.report.update_line import Column, duration, header, log_line, row, shown

log = logging.getLogger(__name__)

HEADER_EVERY = 20
"""Rows between two headers, so that one is in sight on a terminal of 24 lines."""


class PlainConsole(Console):
    """Prints as rich does, with every control or invisible character as an escape, and without markup in texts."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "highlight": False} | options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


def output_console() -> Console:
    """Standard output: colour on a terminal, and never a control code in a file, whatever FORCE_COLOR says."""
    return PlainConsole(soft_wrap=True, force_terminal=None if sys.stdout.isatty() else False)


class Terminal:
    """A context that shows a run's progress. On a terminal updates are rows of a table, elsewhere lines of plain text."""

    def __init__(self, *, total_updates: int, resumed_at: int = 0, console: Console | None = None) -> None:
        self._console = console or output_console()
        self._first, self._total = resumed_at, total_updates
        self._started: float | None = None  # monotonic
        self._columns: tuple[Column, ...] = ()
        self._rows = 0  # since the last header
        self._progress = progress_bar(self._console, "{task.description}", time_left=False)
        self._task = self._progress.add_task("starting", total=total_updates, completed=resumed_at, state="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def phase(self, text: str) -> None:
        """Shows what the run is doing now."""
        log.info(text)
        self._progress.update(self._task, description=text)

    def training(self) -> None:
        """Training starts now: the time left is estimated from here."""
        self._started = time.monotonic()
        self.phase("training")

    def say(self, text: str, *, style: str = "") -> None:
        """Prints text that stays. style: of a terminal, in rich's words."""
        log.info(plain(text))
        self._console.print(plain(text), style=style, markup=False)

    def warn(self, text: str) -> None:
        """Prints a line that stays and is seen."""
        self.say(text, style="bold yellow")

    def update(self, update: int, scalars: Mapping[str, float]) -> None:
        """Shows that `update` is done, with its numbers."""
        began = self._started if self._started is not None else time.monotonic()
        seconds = (time.monotonic() - began) / max(1, update - self._first) * (self._total - update)
        left = duration(seconds)
        if self._console.is_terminal:
            columns = shown(self._total, self._console.width)
            if columns != self._columns or self._rows % HEADER_EVERY == 0:
                self._console.print(header(self._total, columns))
                self._columns, self._rows = columns, 0
            self._rows += 1
            log.info(log_line(update, self._total, scalars, left))
            self._console.print(row(update, self._total, scalars, left, columns))
        else:
            self.say(log_line(update, self._total, scalars, left))
        self._progress.update(self._task, completed=update, state=f"{left} left")
