"""The words that describe a sweep on a command line, and the plan that they make. For `sweep` and `submit`."""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import tyro
from pydantic import Field

from corewarding.launch.config.arguments import ArgumentError
from corewarding.launch.config.command_line import ConfigArguments, parse_config
from corewarding.launch.sweep.axes import SweepError, read_axes
from corewarding.launch.sweep.folder import SweepFolder
from corewarding.launch.sweep.plan import SEED, Search, SweepPlan

OVER = "--over"
EXTRA = ("optuna", "pandas", "tensorboardX")
"""What tells that the extra [sweep] is installed."""


@dataclass(frozen=True)
class SweepKeys(ConfigArguments):
    """What is varied, and how."""

    over: tuple[str, ...] = ()
    """What a sweep varies: KEY=A,B,C lists values, KEY=LOW..HIGH is a range, KEY=log:LOW..HIGH one by its logarithm. May stand
    several times."""
    seeds: Annotated[int | None, Field(ge=1, le=1000)] = None
    """How many seeds train each point of a sweep: 3 is seeds 0, 1 and 2. None: train.seed alone."""
    search: Search = "grid"
    """`grid`: every combination of the lists. `random`: points drawn from lists and ranges. `optuna`: points that Optuna suggests
    from the accuracies of earlier ones."""
    trials: Annotated[int | None, Field(ge=1, le=100000)] = None
    """How many points random and optuna try, each with all seeds."""
    stop_early: tyro.conf.FlagCreatePairsOff[bool] = False
    """ASHA: after eval.every_updates updates, and after 2, 4, 8, ... times as many, only trials in the better half by held-out
    accuracy go on: greedy, or mean@n with eval.quick_samples."""
    name: str | None = None
    """Folder of the sweep under --root; None: run.name."""
    root: Path = Path("sweeps")
    """Folder of all sweeps. On a cluster all nodes must share it."""

    @property
    def folder(self) -> SweepFolder:
        return SweepFolder((self.root / (self.name or self.settings.run.name)).expanduser().resolve())

    def plan(self) -> SweepPlan:
        """The checked plan. SweepError or ConfigError names what is wrong with it."""
        if self.name is not None and ("/" in self.name or self.name.startswith(".") or not self.name):
            raise SweepError(f"--name {self.name!r} must be the name of a folder; --root says where it is")
        base = self.settings
        axes = tuple(read_axes(self.over, base))
        seeds = tuple(range(self.seeds)) if self.seeds is not None else (base.train.seed,)
        plan = SweepPlan(
            base=base,
            axes=axes,
            seeds=seeds,
            search=self.search,
            num_points=self.trials,
            stop_early=self.stop_early,
        )
        plan.check()
        return plan

    def words(self) -> list[str]:
        """The same as words of a command line, with an absolute --root."""
        found = [word for entry in self.over for word in (OVER, entry)]
        found += ["--name", self.folder.path.name, "--root", str(self.folder.path.parent), "--search", self.search]
        found += [] if self.seeds is None else ["--seeds", str(self.seeds)]
        found += [] if self.trials is None else ["--trials", str(self.trials)]
        return found + (["--stop-early"] if self.stop_early else [])


Keys = TypeVar("Keys", bound=SweepKeys)


def parse_sweep(kind: type[Keys], words: list[str], *, command: str) -> Keys:
    """The arguments of a command that takes --over any number of times. ConfigError or SweepError for a mistake."""
    over, rest = _over(words)
    arguments = parse_config(kind, rest, command=command)
    given = {word.lstrip("-").partition("=")[0].replace("-", "_") for word in rest}
    swept = {entry.partition("=")[0].replace("-", "_") for entry in over}
    if both := sorted(given & (swept | ({SEED} if arguments.seeds is not None else set()))):
        raise SweepError(f"{both[0]} is given and swept: leave out one of them")
    return dataclasses.replace(arguments, over=tuple(over))


def refuse_without_extra() -> None:
    """SweepError if what the extra brings is not installed."""
    if missing := [name for name in EXTRA if importlib.util.find_spec(name) is None]:
        raise SweepError(
            f"a sweep needs Ray Tune and Optuna, and {', '.join(missing)} is not installed: pip install 'corewarding[sweep]'"
        )


def _over(words: list[str]) -> tuple[list[str], list[str]]:
    """The values of all --over, and the other words."""
    over: list[str] = []
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        if word == OVER:
            value = next(waiting, None)
            if value is None or value.startswith("--"):
                raise ArgumentError(f"{OVER} needs KEY=VALUES after it, for example {OVER} staleness.max=0,1,2,4")
            over.append(value)
        elif word.startswith(f"{OVER}="):
            over.append(word.partition("=")[2])
        else:
            rest.append(word)
    return over, rest
