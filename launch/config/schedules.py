"""Keys that change during a run: `schedules: {staleness.max: {0: 1, 100: 4}}` sets 1 from the start and 4 after update 100.

A value depends on the number of the update alone, so a resumed run, a replay and a learner that comes back find the same one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from pydantic import ValidationError

from corewarding.launch.config.tree import TrainConfig

SCHEDULED = (
    "staleness.max",
    "staleness.pipeline_depth",
    "train.lr",
    "train.weight_decay",
    "train.grad_clip",
    "loss.eps_low",
    "loss.eps_high",
    "loss.dual_clip",
    "correction.mode",
    "correction.cap",
    "correction.veto",
    "kl.coef",
    "teacher.alpha_start",
    "teacher.alpha_end",
)
"""The keys that may change between two updates. Every other one is built into a process, a file or a count when a run starts."""


def stages(config: TrainConfig) -> list[tuple[int, TrainConfig]]:
    """(updates done, the configuration from then on), rising; empty without schedules. ValidationError for a value that a key cannot
    take."""
    starts = sorted({start for values in config.schedules.values() for start in values})
    return [(start, at(config, start)) for start in starts]


def at(config: TrainConfig, updates: int) -> TrainConfig:
    """The configuration after so many updates, without schedules."""
    content = config.model_dump(mode="json") | {"schedules": {}}
    for key, values in config.schedules.items():
        if past := [start for start in values if start <= updates]:
            section, name = key.split(".")
            content[section][name] = values[max(past)]
    return TrainConfig.model_validate(content)


def problems_of_keys(config: TrainConfig) -> Iterator[str]:
    """What is wrong with the schedules themselves: their keys, their updates, and values that a key cannot take."""
    for key, values in config.schedules.items():
        if key not in SCHEDULED:
            near = difflib.get_close_matches(key, SCHEDULED, n=1)
            hint = f"did you mean {near[0]}?" if near else f"these can: {', '.join(SCHEDULED)}"
            yield f"schedules.{key} cannot change during a run; {hint}"
            return
        if not values:
            yield f"schedules.{key} has no values; write {{updates done: value}}, as in {{0: 1, 100: 4}}"
        for start in values:
            if not 0 <= start < config.train.updates:
                yield f"schedules.{key} must begin between update 0 and train.updates - 1 = {config.train.updates - 1}, got {start}"
    try:
        stages(config)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        key = ".".join(map(str, found["loc"]))
        yield f"schedules.{key}: {found['msg'].removeprefix('Value error, ')}, got {found['input']!r}"
