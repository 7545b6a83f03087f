"""Shows the samples of runs in a browser: both wordings, votes, labels, rewards, and which weights wrote each token."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from pydantic import Field

from corewarding.dataflow.errors import UserError
from corewarding.launch.commands.runs.journal import journal_of, run_of
from corewarding.launch.commands.runs.replay import recompute_tokens
from corewarding.launch.config.arguments import ArgumentError, read_arguments
from corewarding.launch.report.plain import say

if TYPE_CHECKING:
    from corewarding.launch.view.run import ViewedRun
    from corewarding.launch.view.search.filters import Filter


@dataclass(frozen=True, kw_only=True)
class SampleFilters:
    """Which questions. What is given must all fit; rewards, --truncated and --search must fit the same completion."""

    search: str | None = None
    """Text in completions, answers, wordings or ids."""
    regex: tyro.conf.FlagCreatePairsOff[bool] = False
    """--search is a regular expression."""
    question: str | None = None
    """Id of a question."""
    fate: Literal["trained", "voted", "withheld", "dropped", "waiting"] | None = None
    """What became of it."""
    wrong: tyro.conf.FlagCreatePairsOff[bool] = False
    """A label is not the data set's answer."""
    abstained: tyro.conf.FlagCreatePairsOff[bool] = False
    """A vote abstained, so there is no label."""
    differ: Literal["views", "sources"] | None = None
    """The votes of the two wordings, or of policy and teacher, have other winners."""
    truncated: tyro.conf.FlagCreatePairsOff[bool] = False
    """A completion ended at the token limit."""
    swapped: tyro.conf.FlagCreatePairsOff[bool] = False
    """Weights were swapped within a completion."""
    update: Annotated[int | None, Field(ge=1)] = None
    """Only of this update."""
    update_from: Annotated[int | None, Field(ge=1)] = None
    """Only of this update and later ones."""
    update_to: Annotated[int | None, Field(ge=1)] = None
    """Only of this update and earlier ones."""
    reward_from: float | None = None
    """A completion with at least this reward."""
    reward_to: float | None = None
    """A completion with at most this reward."""
    again: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also updates that a later start of the run made again."""
    order: Literal["update", "newest", "reward", "share"] = "update"
    """By update, the newest first, by lowest reward, or by the closest vote."""
    recompute: tyro.conf.FlagCreatePairsOff[bool] = False
    """First make the updates of --update, or --update-from to --update-to, again from the journal, to get the importance weights of
    questions that the learner did not record; as corewarding replay does, with the run's configuration and plug-ins."""

    def chosen(self) -> Filter:
        from corewarding.launch.view.search.filters import Filter

        if self.update is not None and (self.update_from, self.update_to) != (None, None):
            raise ArgumentError("--update is one update: leave it out, or --update-from and --update-to")
        values = {
            name: getattr(self, name)
            for name in SampleFilters.__dataclass_fields__
            if name not in ("update", "recompute")
        }
        if self.update is not None:
            values |= {"update_from": self.update, "update_to": self.update}
        return Filter(**values)

    @property
    def updates(self) -> tuple[int, int] | None:
        """The first and last update that are asked for; None without both bounds."""
        first, last = (self.update, self.update) if self.update is not None else (self.update_from, self.update_to)
        return None if first is None or last is None else (first, last)


@dataclass(frozen=True, kw_only=True)
class ViewArguments(SampleFilters):
    """Serves a page on this machine alone, until Ctrl-C, with every question of the runs: its wordings, the groups of policy and
    teacher with each completion, how its answer was read, the vote, the label or why there is none, reward, advantage, what became
    of it, and for each token its log-probability, the weights that wrote it, and, where the learner recorded them or --recompute
    computes them, its importance weight and whether it entered the loss. A second page, Run, has the alarms and curves of the runs as
    a whole, and shows who waits for whom.

    Everything comes from the run's files, so a run that crashed or is still going on can be viewed too; of a run without a journal the
    page Run alone has something to show. An index is kept in the run folder (view.sqlite) and may be removed.
    """

    run_dirs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Run directories, for example runs/cpu. Two or more can be compared on the same question."""
    follow: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on reading the files of a run that is still going on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port of the page; 0: any that is free."""
    out: Path | None = None
    """Write the samples into this one HTML file instead, which opens without a server and asks for nothing."""
    limit: Annotated[int, Field(ge=1)] = 2000
    """The most completions of each run in the file, spread evenly over the questions that fit."""


def run(words: list[str]) -> int:
    arguments = read_arguments(ViewArguments, words, prog="corewarding view")
    _refuse_without_meaning(arguments)
    chosen = arguments.chosen()
    recompute(arguments.run_dirs, arguments)
    with opened(arguments.run_dirs, with_samples=arguments.out is not None) as runs:
        if arguments.out is not None:
            return _write(runs, arguments.out, chosen, arguments.limit)
        return asyncio.run(_serve(runs, arguments, chosen.query()))


def _refuse_without_meaning(arguments: ViewArguments) -> None:
    if arguments.out is None and arguments.limit != 2000:
        raise ArgumentError("--limit is of the file of --out; the page has all completions")
    if arguments.out is not None and arguments.follow:
        raise ArgumentError("--out writes what is there now: leave out --follow")


def _write(runs: list[ViewedRun], out: Path, chosen: Filter, limit: int) -> int:
    from corewarding.launch.view.export import write_page

    for one in runs:
        one.read()
        for note in filter(None, [one.problem, *one.facts.notes]):
            say(f"note: {one.name}: {note}", error=True)
    size, num = write_page(out, runs, chosen, limit)
    say(f"{out}: {num} completions, {size / 1e6:.1f} MB")
    return 0


def recompute(folders: tuple[Path, ...], arguments: SampleFilters) -> None:
    """Makes the updates that are asked for again, if --recompute says so, and notes all their tokens in the runs' token logs."""
    if not arguments.recompute:
        return
    if (updates := arguments.updates) is None:
        raise ArgumentError(
            "--recompute makes updates again: say which, with --update 20, or with --update-from 18 --update-to 20"
        )
    if updates[0] > updates[1]:
        raise ArgumentError(f"--update-from {updates[0]} comes after --update-to {updates[1]}")
    for folder in folders:
        journal_of(folder, "RUN")
        recompute_tokens(folder, *updates)


@contextlib.contextmanager
def opened(folders: tuple[Path, ...], *, with_samples: bool = True) -> Iterator[list[ViewedRun]]:
    """The runs, with an index each that is not filled yet. with_samples: a run without a journal is refused."""
    if not folders:
        raise UserError("RUN is missing: give a run directory, for example runs/cpu")
    journals = [journal_of(one, "RUN") if with_samples else run_of(one, "RUN").journal for one in folders]
    names = [folder.resolve().name for folder in folders]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two runs are named {twice[0]}: the page tells them apart by name; view them one by one")
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}  # what is not here is not asked for
    from corewarding.launch.view.run import ViewedRun

    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(contextlib.closing(ViewedRun(folder, journal)))
            for folder, journal in zip(folders, journals, strict=True)
        ]


async def _serve(runs: list[ViewedRun], arguments: ViewArguments, query: str) -> int:
    from corewarding.launch.view.loopback import listening
    from corewarding.launch.view.server import Server

    server = Server(runs, listening(arguments.port))
    ends = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ends.set)
    await server.start()
    for one in runs:
        one.start(follow=arguments.follow)
    say(f"{', '.join(one.name for one in runs)}: {server.address}{'#' * bool(query)}{query}")
    say("open it in a browser on this machine; Ctrl-C ends it")
    await ends.wait()
    await server.close()
    return 0
