"""The plan of a sweep: which points it has, by which seeds each is trained, and how a trial is called.

A point is a mapping from key to the text of a value, as in `key=value`; a trial is a point with a seed, and an ordinary run.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from corewarding.dataflow.errors import UserError
from corewarding.launch.config.load import make_config
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.sweep.axes import Axis, SweepError, with_values

Search = Literal["grid", "random", "optuna"]
SEED = "train.seed"
LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a sweep."""

    point: Mapping[str, str]
    seed: int

    @property
    def name(self) -> str:
        """Its folder in the sweep's folder: the last word of each key with its value, and the seed."""
        short = shortened(list(self.point))
        exact = "_".join([*(f"{word}-{text}" for word, text in zip(short, self.point.values(), strict=True)), ""])
        plain = re.sub(r"[^A-Za-z0-9._-]+", ".", exact)
        if plain != exact or len(plain) > LONGEST_NAME:
            plain = f"{plain[:LONGEST_NAME].strip('._')}_{hashlib.sha1(exact.encode()).hexdigest()[:6]}_"
        return plain.strip("_") if SEED in self.point else f"{plain}seed-{self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """What a sweep trains, apart from the machine that it trains on."""

    base: TrainConfig
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...]
    search: Search = "grid"
    num_points: int | None = None  # of a search other than the grid
    stop_early: bool = False

    def check(self) -> None:
        """SweepError if the parts of the plan contradict each other."""
        ranges = [axis.key for axis in self.axes if axis.range is not None]
        if not self.axes and len(self.seeds) < 2:
            raise SweepError("a sweep needs something to vary: --over staleness.max=0,1,2,4, or --seeds 3")
        if self.search == "grid" and ranges:
            raise SweepError(
                f"--over {ranges[0]} is a range, and --search grid makes every pair of listed values: write a list, or choose "
                "--search random or optuna with --trials"
            )
        if self.search == "grid" and self.num_points is not None:
            raise SweepError("--trials is for --search random or optuna; a grid has as many points as its lists make")
        if self.search != "grid" and (self.num_points is None or not self.axes):
            raise SweepError(
                f"--search {self.search} needs --trials, how many points to try, and --over, where to look"
            )
        if SEED in (axis.key for axis in self.axes) and len(self.seeds) > 1:
            raise SweepError(f"--over {SEED} and --seeds say the same: leave one of them out")
        if self.stop_early and not 0 < self.base.eval.every_updates < self.base.train.updates:
            raise SweepError(
                "--stop-early compares trials by their held-out accuracy during training: set eval.every_updates between 1 and "
                f"train.updates = {self.base.train.updates}, got {self.base.eval.every_updates}"
            )

    def points(self) -> list[dict[str, str]]:
        """All points, for a search that knows them before it starts. Random ones depend on train.seed alone."""
        if self.search == "grid":
            choices = itertools.product(*(axis.values for axis in self.axes))
            return [dict(zip(self.keys, texts, strict=True)) for texts in choices]
        if self.search == "random":
            return list(self._drawn())
        return []

    @property
    def lists_are_short(self) -> str | None:
        """Says that a random search finds fewer points than were asked for; None if it finds them all."""
        if self.search != "random" or len(self.points()) == self.num_points:
            return None
        return f"--trials {self.num_points}: the lists of --over make only {len(self.points())} points"

    @property
    def short_keys(self) -> list[str]:
        """The last word of each key, or the whole key where two end alike."""
        return shortened(self.keys)

    @property
    def keys(self) -> list[str]:
        return [axis.key for axis in self.axes]

    @property
    def num_trials(self) -> int:
        if self.search == "optuna":
            return (self.num_points or 0) * len(self.seeds)
        return len(self.points()) * len(self.seeds)

    def trials(self) -> list[Trial]:
        """Seed by seed, so that every point has been seen once before any is seen twice."""
        return [Trial(point, seed) for seed in self.seeds for point in self.points()]

    def config_of(self, trial: Trial, *, root: str) -> TrainConfig:
        """The configuration of a trial. ConfigError if its values contradict each other."""
        content = with_values(self.base, {**trial.point, **self.own_keys(trial, root=root)})
        return make_config(content, where="this point")

    def own_keys(self, trial: Trial, *, root: str) -> dict[str, str]:
        """What the sweep sets in a trial, as texts of values."""
        own = {"run.name": trial.name, "run.root": root, "run.resume": "auto"}
        if "collapse.on_collapse" not in self.keys:
            own["collapse.on_collapse"] = "stop"
        if SEED not in self.keys:
            own[SEED] = str(trial.seed)
        return {
            key: yaml.safe_dump(text, default_style='"').strip() if key.startswith("run.") else text
            for key, text in own.items()
        }

    def _drawn(self) -> Iterator[dict[str, str]]:
        import numpy as np

        source = np.random.RandomState(self.base.train.seed)
        drawn: dict[str, dict[str, str]] = {}
        domains = space(self.axes)
        for _ in range(100 * (self.num_points or 0)):  # lists alone may have fewer points than were asked for
            point = {axis.key: text_of(axis, domains[axis.key].sample(random_state=source)) for axis in self.axes}
            drawn.setdefault(str(point), point)
            if len(drawn) == self.num_points:
                break
        yield from drawn.values()


def shortened(keys: Sequence[str]) -> list[str]:
    last = [key.rpartition(".")[2] for key in keys]
    return [word if last.count(word) == 1 else key for word, key in zip(last, keys, strict=True)]


def space(axes: Sequence[Axis]) -> dict[str, Any]:
    """The axes in Tune's words."""
    from ray import tune

    found: dict[str, Any] = {}
    for axis in axes:
        if axis.range is None:
            found[axis.key] = tune.choice(list(axis.values))
        elif axis.range.whole:
            draw = tune.lograndint if axis.range.log else tune.randint
            found[axis.key] = draw(int(axis.range.low), int(axis.range.high) + 1)
        else:
            draw = tune.loguniform if axis.range.log else tune.uniform
            found[axis.key] = draw(axis.range.low, axis.range.high)
    return found


def text_of(axis: Axis, value: object) -> str:
    """A value that Tune drew, as the text of a point."""
    return axis.range.text(float(str(value))) if axis.range is not None else str(value)


def numbers_of(plan: SweepPlan, point: Mapping[str, str]) -> dict[str, object]:
    """The values of a point as Tune drew them."""

    def value(axis: Axis) -> object:
        text = point[axis.key]
        return text if axis.range is None else int(text) if axis.range.whole else float(text)

    return {axis.key: value(axis) for axis in plan.axes}


def impossible(plan: SweepPlan, trials: Sequence[Trial], *, root: str) -> dict[str, str]:
    """The names of trials whose configuration is refused, with the message."""
    found = {}
    for trial in trials:
        try:
            plan.config_of(trial, root=root)
        except UserError as error:
            found[trial.name] = str(error)
    return found
