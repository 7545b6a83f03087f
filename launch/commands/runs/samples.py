"""Prints questions of a run with votes, labels and completions: what `view` shows, for a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from corewarding.dataflow.errors import RunError
from corewarding.launch.commands.runs.view import SampleFilters, opened, recompute
from corewarding.launch.config.arguments import read_arguments
from corewarding.launch.report.plain import say
from corewarding.launch.report.tables.output import JsonFlag, json_line


@dataclass(frozen=True, kw_only=True)
class SamplesArguments(SampleFilters):
    """Prints the questions that fit, each with its wordings, the votes of its groups, labels, and every completion."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory, for example runs/cpu."""
    limit: Annotated[int, Field(ge=0)] = 5
    """The most questions."""
    letters: Annotated[int, Field(ge=0)] = 2000
    """The most letters of each completion; --json has them all."""
    tokens: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also each token, with the weights that wrote it, its log-probability under sampler, learner and proximal policy, its importance
    ratio and weight, and why it did not enter the loss."""
    json: JsonFlag = False
    """A JSON object on each line, for programs."""


def run(words: list[str]) -> int:
    arguments = read_arguments(SamplesArguments, words, prog="corewarding samples")
    chosen = arguments.chosen()
    recompute((arguments.run_dir,), arguments)
    with opened((arguments.run_dir,)) as (run,):
        from corewarding.launch.view.terminal import lines, rows

        run.read()
        if arguments.json:
            for row in rows(run, chosen, limit=arguments.limit, with_tokens=arguments.tokens):
                print(json_line(row), flush=True)
        else:
            for note in run.facts.notes:
                say(f"note: {note}", error=True)
            with_tokens, letters = arguments.tokens, arguments.letters
            for line in lines(run, chosen, limit=arguments.limit, letters=letters, with_tokens=with_tokens):
                say(line)
        if run.problem is not None:
            raise RunError(run.problem)
    return 0
