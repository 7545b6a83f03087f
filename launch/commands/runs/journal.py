"""Shows what became of every completion or question of a run, and what two runs trained on differently."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from corewarding.dataflow.errors import UserError
from corewarding.dataflow.ids import Source
from corewarding.launch.config.arguments import ArgumentError, read_arguments
from corewarding.launch.report.plain import say
from corewarding.launch.report.run_directory import RunDir


@dataclass(frozen=True)
class JournalArguments:
    """Prints the starts of a run, a line for each completion as it left the replay buffer, and the tally of all completions.

    Each completion is trained, voted (only its answer counted), withheld from the loss, dropped (and why) or waiting. A start from a
    checkpoint forgets what came after it and makes those updates again; --all shows what was forgotten, too. The run may still be
    going on.
    """

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory, for example runs/cpu."""
    by: Literal["completion", "question"] = "completion"
    """What a line is about."""
    question: str | None = None
    """Only of this question: its id, or id and epoch as in q12/e0."""
    update: Annotated[int | None, Field(ge=1)] = None
    """Only of this update."""
    fate: Literal["trained", "voted", "withheld", "dropped", "waiting"] | None = None
    """Only what became this."""
    source: Source | None = None
    """Only completions of the policy or of the teacher."""
    limit: Annotated[int | None, Field(ge=0)] = None
    """The most lines; the tally is always of the whole run. With --diff: the differing examples to show; None: none."""
    all: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also what a later start forgot and made again."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """A JSON object on each line."""
    diff: Path | None = None
    """Another run directory: which examples did the two runs train on, and in which update?"""


def run(words: list[str]) -> int:
    arguments = read_arguments(JournalArguments, words, prog="corewarding journal")
    _refuse_without_meaning(arguments)
    from corewarding.launch.report.journal.difference import difference_lines
    from corewarding.launch.report.journal.lines import journal_lines
    from corewarding.launch.report.journal.selection import Selection

    journal = journal_of(arguments.run_dir, "RUN")
    if arguments.diff is not None:
        other = journal_of(arguments.diff, "--diff")
        lines = difference_lines(
            arguments.run_dir, journal, arguments.diff, other, limit=arguments.limit or 0, as_json=arguments.json
        )
    else:
        selection = Selection(
            question=arguments.question,
            update=arguments.update,
            fate=arguments.fate,
            source=arguments.source,
            with_made_again=arguments.all,
        )
        lines = journal_lines(
            journal, by=arguments.by, selection=selection, limit=arguments.limit, as_json=arguments.json
        )
    for line in lines:
        say(line)
    return 0


def journal_of(folder: Path, argument: str) -> Path:
    """The folder with the run's journal. UserError with the remedy if there is none."""
    run_dir = run_of(folder, argument)
    if run_dir.journal.is_dir():
        return run_dir.journal
    if _retained(run_dir) == "off":
        raise UserError(
            f"{argument}={folder} keeps no journal: journal.retain is off in its config.yaml; train with --journal.retain all"
        )
    raise UserError(
        f"{argument}={folder} holds no journal yet: the run has not asked a question; `corewarding resume {folder}` goes on with it"
    )


def run_of(folder: Path, argument: str) -> RunDir:
    """The run directory of a configuration, of a journal, or of both. UserError with the remedy if it is none."""
    run_dir = RunDir(folder.parent, folder.name)
    if not folder.is_dir():
        raise UserError(f"{argument}={folder}: no such folder; give a run directory, for example runs/cpu")
    if not (run_dir.journal.is_dir() or run_dir.config.is_file()):
        raise UserError(
            f"{argument}={folder} is no run directory: it holds no config.yaml; give one, for example runs/cpu"
        )
    return run_dir


def _retained(run_dir: RunDir) -> object:
    journal = run_dir.saved().get("journal")
    return journal.get("retain") if isinstance(journal, dict) else None


def _refuse_without_meaning(arguments: JournalArguments) -> None:
    """ArgumentError for flags that would change nothing."""
    if arguments.by == "question" and arguments.source is not None:
        raise ArgumentError("--source chooses among completions: leave out --source or --by question")
    filters = {
        "--by": arguments.by != "completion",
        "--question": arguments.question is not None,
        "--update": arguments.update is not None,
        "--fate": arguments.fate is not None,
        "--source": arguments.source is not None,
        "--all": arguments.all,
    }
    given = [name for name, is_given in filters.items() if is_given]
    if arguments.diff is not None and given:
        raise ArgumentError(f"--diff compares all that two runs trained on: leave out {', '.join(given)}")
