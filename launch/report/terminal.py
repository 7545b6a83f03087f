"""The terminal of a run: its introduction, the lines that stay, and below them a progress line."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Self

import yaml
from rich.console import Console

from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.progress import progress_bar


class Terminal:
    """A context that shows a run's progress line. What say() prints is plain text, also outside of a terminal."""

    def __init__(self, *, total_updates: int, resumed_at: int = 0, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._first, self._total = resumed_at, total_updates
        self._started: float | None = None  # monotonic
        self._progress = progress_bar(self._console, "{task.description}", time_left=False)
        self._task = self._progress.add_task("starting", total=total_updates, completed=resumed_at, state="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def phase(self, text: str) -> None:
        """Shows what the run is doing now."""
        self._progress.update(self._task, description=text)

    def training(self) -> None:
        """Training starts now: the time left is estimated from here."""
        self._started = time.monotonic()
        self.phase("training")

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self._console.print(text, markup=False)

    def advance(self, update: int) -> str:
        """Shows that `update` is done; returns the time left as m:ss."""
        began = self._started if self._started is not None else time.monotonic()
        seconds = (time.monotonic() - began) / max(1, update - self._first) * (self._total - update)
        left = f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
        self._progress.update(self._task, completed=update, state=f"{left} left")
        return left


def introduce(config: TrainConfig, facts: Mapping[str, str]) -> None:
    """Prints what is about to run: the resolved configuration, one section per line, and `facts` that follow from it."""
    console = Console(highlight=False, soft_wrap=True)
    for key, value in config.model_dump(mode="json").items():
        console.print(f"{key}: {_inline(value)}", markup=False)
    width = max(map(len, facts))
    console.print()
    for name, fact in facts.items():
        console.print(f"{name:<{width}}  {fact}", markup=False)
    console.print()


def _inline(value: Any) -> str:
    """YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")
