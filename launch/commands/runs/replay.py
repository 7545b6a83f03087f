"""Rebuilds the weights of a run from its journal, and compares them bit by bit; or asks what other settings had done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from corewarding.dataflow.errors import UserError
from corewarding.launch.config.arguments import read_arguments
from corewarding.launch.config.command_line import ConfigArguments, parse_config
from corewarding.launch.report.plain import say
from corewarding.launch.report.run_directory import RunDir

if TYPE_CHECKING:
    from corewarding.launch.config.tree import TrainConfig
    from corewarding.launch.run.journal.replay import Replayed


@dataclass(frozen=True)
class ReplayArguments:
    """Makes the updates of a run again from its starting weights and its journal, without engines, and compares a digest of the
    weights after each update.

    On a CPU with the same ranks, threads and packages they are equal bit for bit; on GPUs with learner.deterministic. Exit code 1 if
    they are not. With --what-if the updates are made of the same completions by other settings.
    """

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory, for example runs/cpu."""
    until: int | None = None
    """The last update to make; None: the last one of the journal."""
    out: Path | None = None
    """New folder for the weights: policy/ and, if there is one, teacher/, as from_pretrained opens them."""
    what_if: tuple[str, ...] = ()
    """Keys with other values, as in rule=majority_vote correction.mode=bypass: those of rewards, advantages, correction, loss, KL,
    teacher and optimizer."""


def run(words: list[str]) -> int:
    arguments = read_arguments(ReplayArguments, words, prog="corewarding replay")
    run_dir, then, now = _configurations(arguments)
    if arguments.out is not None and arguments.out.exists():
        raise UserError(f"--out {arguments.out} exists already; choose another folder")
    from corewarding.launch.run.journal.replay import replay_here

    found = replay_here(run_dir, then=then, now=now, until=arguments.until, out=arguments.out)
    _print(found, run_dir, arguments.out)
    return 1 if found.what_if is None and found.comparison.first_difference is not None else 0


def _configurations(arguments: ReplayArguments) -> tuple[RunDir, TrainConfig, TrainConfig]:
    """(the run, its configuration, the same with --what-if)."""
    run_dir, then = _configured(arguments.run_dir)
    wrong = [word for word in arguments.what_if if "=" not in word]
    if wrong:
        raise UserError(f"--what-if {wrong[0]}: write KEY=VALUE, for example --what-if correction.mode=bypass")
    return run_dir, then, _configured(arguments.run_dir, arguments.what_if)[1]


def _configured(folder: Path, words: tuple[str, ...] = ()) -> tuple[RunDir, TrainConfig]:
    """The run in a folder and its configuration. words: keys with other values."""
    where = folder.resolve()
    run_dir = RunDir(where.parent, where.name)
    if not run_dir.config.is_file():
        raise UserError(f"{folder} is no run directory: it holds no config.yaml")
    run_dir.saved()
    config = parse_config(ConfigArguments, [str(run_dir.config), *words], command="replay").settings
    run = config.run.model_copy(update={"name": where.name, "root": str(where.parent)})
    return run_dir, config.model_copy(update={"run": run})


def recompute_tokens(folder: Path, first: int, last: int) -> None:
    """Makes the updates `first` to `last` of a run again, and notes all their tokens in its token log."""
    run_dir, config = _configured(folder)
    from corewarding.launch.run.journal.recompute import recompute_here

    found = recompute_here(run_dir, config, first=first, last=last)
    updates = f"update {first}" if first == last else f"updates {first} to {last}"
    for difference in found.differences:
        say(f"note: {difference}", error=True)
    if found.comparison.first_difference is not None:
        say(
            f"note: the weights differ from the run's from update {found.comparison.first_difference} on, so the values of {updates} "
            "are near the run's own, and not the same",
            error=True,
        )
    say(f"{updates} of {folder}, made again from {found.base}: all their tokens are in tokens/recomputed", error=True)


def _print(found: Replayed, run_dir: RunDir, out: Path | None) -> None:
    comparison = found.comparison
    made = f"update {found.updates} of {run_dir.path}, made again from {found.base}"
    for difference in found.differences:
        say(f"note: {difference}")
    if found.what_if is not None:
        from corewarding.launch.run.journal.what_if import table

        say(table(found.what_if, run_dir))
        say(f"{made}, with {'; '.join(map(str, found.what_if.changes))}")
    elif comparison.first_difference is None:
        say(
            f"{made}: the weights of {comparison.num_equal} update{'s'[: comparison.num_equal != 1]} are equal, bit for bit"
        )
    else:
        say(
            f"{made}: the weights differ from update {comparison.first_difference} on; {comparison.num_equal} updates are equal"
        )
    if out is not None:
        say(f"written to {out}")
