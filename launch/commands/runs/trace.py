"""Writes a Perfetto trace and a Gantt picture of a run: which process worked when."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from corewarding.launch.config.arguments import read_arguments
from corewarding.launch.report.plain import say


@dataclass(frozen=True)
class TraceArguments:
    """Writes trace.json (for Perfetto) and trace.png (a Gantt picture) into a run directory."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory, for example runs/cpu."""
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    """Seconds at the end of the run that the picture shows."""


def run(words: list[str]) -> int:
    arguments = read_arguments(TraceArguments, words, prog="corewarding trace")
    from corewarding.launch.report.trace import write_trace

    say(write_trace(arguments.run_dir, seconds=arguments.seconds))
    return 0
