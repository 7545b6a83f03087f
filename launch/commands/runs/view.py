"""Shows the samples of runs in a browser: both wordings, votes, labels, rewards, and which weights wrote each token."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field

from corewarding.dataflow.errors import UserError
from corewarding.launch.commands.runs.journal import journal_of
from corewarding.launch.config.arguments import read_arguments
from corewarding.launch.report.plain import say

if TYPE_CHECKING:
    from corewarding.launch.view.run import ViewedRun


@dataclass(frozen=True)
class ViewArguments:
    """Serves a page on this machine alone, until Ctrl-C, with every question of the runs: its wordings, the groups of policy and
    teacher with each completion, how its answer was read, the vote, the label or why there is none, reward, advantage, what became
    of it, and for each token its log-probability and the weights that wrote it.

    Everything comes from the run's journal, so a run that crashed or is still going on can be viewed too. An index is kept in the run
    folder (view.sqlite) and may be removed.
    """

    run_dirs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Run directories, for example runs/cpu. Two or more can be compared on the same question."""
    follow: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on reading the journal of a run that is still going on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port of the page; 0: any that is free."""


def run(words: list[str]) -> int:
    arguments = read_arguments(ViewArguments, words, prog="corewarding view")
    with opened(arguments.run_dirs) as runs:
        return asyncio.run(_serve(runs, arguments))


@contextlib.contextmanager
def opened(folders: tuple[Path, ...]) -> Iterator[list[ViewedRun]]:
    """The runs, with an index each that is not filled yet."""
    if not folders:
        raise UserError("RUN is missing: give a run directory, for example runs/cpu")
    journals = [journal_of(folder, "RUN") for folder in folders]
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


async def _serve(runs: list[ViewedRun], arguments: ViewArguments) -> int:
    from corewarding.launch.view.server import Server

    server = Server(runs, port=arguments.port)
    ends = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ends.set)
    await server.start()
    for one in runs:
        one.start(follow=arguments.follow)
    say(f"{', '.join(one.name for one in runs)}: {server.address}")
    say("open it in a browser on this machine; Ctrl-C ends it")
    await ends.wait()
    await server.close()
    return 0
