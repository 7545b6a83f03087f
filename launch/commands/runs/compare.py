"""Compares two runs: which keys differ, and what came out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from corewarding.dataflow.errors import UserError
from corewarding.launch.config.arguments import read_arguments
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.report.tables.comparison import compare_runs, comparison_table
from corewarding.launch.report.tables.output import JsonFlag, print_rows


@dataclass(frozen=True)
class CompareRunsArguments:
    """Compares two runs: keys of the configuration, packages and model that differ, and the results of both.

    Numbers of updates are medians over the last quarter of the updates that both have made. The runs may still be going on.
    `corewarding journal A --diff B` compares what they trained on, `corewarding eval --compare` two evaluations with intervals.
    """

    first: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory, for example runs/cpu."""
    second: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OTHER")]
    """The other run directory."""
    json: JsonFlag = False
    """A JSON object on each line, for programs."""


def run(words: list[str]) -> int:
    arguments = read_arguments(CompareRunsArguments, words, prog="corewarding compare")
    found = compare_runs(_run_at(arguments.first, "RUN"), _run_at(arguments.second, "OTHER"))
    print_rows(
        (one.as_row() for one in found),
        lambda: comparison_table(found, arguments.first, arguments.second),
        as_json=arguments.json,
        wide=True,
    )
    return 0


def _run_at(folder: Path, argument: str) -> RunDir:
    where = folder.resolve()
    run_dir = RunDir(where.parent, where.name)
    if not run_dir.config.is_file():
        raise UserError(
            f"{argument}={folder} is no run directory: it holds no config.yaml; `corewarding runs` lists the runs"
        )
    return run_dir
