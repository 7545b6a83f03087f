"""The progress bar of runs and of commands that sample: how many are done, a state, the time left."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)


def progress_bar(console: Console, what: str, *, time_left: bool = True) -> Progress:
    """A bar labelled `what`, shown only on a terminal. Its tasks need a field `state`, a text.

    what: may name fields of the task, such as "{task.description}". time_left: False if the state tells it.
    """
    columns: list[ProgressColumn] = [
        SpinnerColumn(),
        TextColumn(what),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
    ]
    return Progress(
        *columns,
        *([TimeRemainingColumn()] if time_left else []),
        console=console,
        disable=not console.is_terminal,
        transient=True,
        refresh_per_second=2,
    )
