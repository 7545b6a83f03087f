"""Writes a Perfetto trace and a Gantt picture of a run: which process worked when."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class TraceArguments:
    """Writes trace.json (for Perfetto) and trace.png (a Gantt picture) into a run directory."""

    run_dir: tyro.conf.Positional[Path]
    """Run directory, for example runs/cpu."""
    seconds: float = 30.0
    """Seconds at the end of the run that the picture shows."""


def run(words: list[str]) -> int:
    arguments = tyro.cli(TraceArguments, args=words, prog="corewarding trace")
    from corewarding.launch.report.trace import write_trace

    print(write_trace(arguments.run_dir, seconds=arguments.seconds))
    return 0
