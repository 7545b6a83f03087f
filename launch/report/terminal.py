"""The terminal of a run: one fixed line per update, and on a terminal a live status line below with the time left."""

from __future__ import annotations

import time
from typing import Any, Self

import torch
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.run.inputs import Inputs


class Terminal:
    """A context: inside it the status line is shown, where standard output is a terminal. Other output stays plain text."""

    def __init__(self, *, total_updates: int, resumed_at: int = 0, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._first, self._total = resumed_at, total_updates
        self._started: float | None = None
        self._status = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            transient=True,
            refresh_per_second=2,
            disable=not self._console.is_terminal,
        )
        self._task = self._status.add_task("starting", total=total_updates, completed=resumed_at, left="")

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def phase(self, text: str) -> None:
        """What the run does now."""
        if self._started is None and text == "training":
            self._started = time.monotonic()
        self._status.update(self._task, description=text)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False)

    def advance(self, update: int) -> str:
        """An update was made; the time left as m:ss."""
        began = self._started if self._started is not None else time.monotonic()
        seconds = (time.monotonic() - began) / max(1, update - self._first) * (self._total - update)
        left = f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
        self._status.update(self._task, completed=update, left=f"{left} left")
        return left


def introduce(config: TrainConfig, inputs: Inputs, run_dir: RunDir, *, resumes_after: int | None) -> None:
    """Prints what is about to run: the resolved configuration, a section a line, and the sizes that follow from it."""
    console = Console(highlight=False, soft_wrap=True)
    for key, value in config.model_dump(mode="json").items():
        console.print(f"{key}: {_inline(value)}", markup=False)
    prepared = inputs.prepared
    facts = {
        "questions": f"{len(prepared.questions)} ({prepared.num_dropped} dropped: longer than {config.data.max_prompt_tokens} tokens)",
        **config.derived(),
        "longest prompt + completion": f"{inputs.max_model_len} tokens",
        "torch": torch.__version__,
        "run directory": str(run_dir.path),
    }
    if resumes_after is not None:
        facts["resumes"] = f"after update {resumes_after}"
    width = max(map(len, facts))
    console.print()
    for name, fact in facts.items():
        console.print(f"{name:<{width}}  {fact}", markup=False)
    console.print()


def _inline(value: Any) -> str:
    """YAML on one line."""
    return (
        yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
        .removesuffix("\n")
        .removesuffix("\n...")
    )
