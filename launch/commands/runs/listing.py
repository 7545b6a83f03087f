"""Lists the runs of a folder with their status and headline numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from corewarding.dataflow.errors import UserError
from corewarding.launch.config.arguments import read_arguments
from corewarding.launch.report.plain import say
from corewarding.launch.report.tables.output import JsonFlag, print_rows
from corewarding.launch.report.tables.runs import facts_of, find_runs, rows_of, table_of


@dataclass(frozen=True)
class RunsArguments:
    """Lists the runs of a folder, the newest first: running, ended, failed or interrupted, with accuracy, reward and speed.

    A sweep's trials are runs, too. Reads files only.
    """

    root: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="ROOT")] = Path("runs")
    """Folder that holds runs, or a run."""
    json: JsonFlag = False
    """A JSON object on each line, for programs."""


def run(words: list[str]) -> int:
    arguments = read_arguments(RunsArguments, words, prog="corewarding runs")
    if not arguments.root.is_dir():
        raise UserError(
            f"ROOT={arguments.root}: no such folder; give the folder of your runs (run.root), or start one: corewarding train cpu"
        )
    facts = [facts_of(folder, root=arguments.root) for folder in find_runs(arguments.root)]
    facts.sort(key=lambda one: -one.written_s)
    if not facts and not arguments.json:
        say(f"{arguments.root} holds no run")
        return 0
    print_rows(rows_of(facts), lambda: table_of(facts), as_json=arguments.json, wide=True)
    for one in (one for one in facts if one.reason and not arguments.json):
        say(f"{one.name}: {one.reason.partition(chr(10))[0]}")
    return 0
