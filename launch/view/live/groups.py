"""Which runs differ only in their seed: the page joins them to one band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from corewarding.launch.report.changes import OWN, differences

SEED = "train.seed"


def grouped(saved: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Names of runs, those with equal settings together. saved: the content of each run's config.yaml."""
    groups: list[list[str]] = []
    for name, content in saved.items():
        group = next((one for one in groups if content and is_repeated(saved[one[0]], content)), None)
        if group is None:
            groups.append([name])
        else:
            group.append(name)
    return groups


def is_repeated(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether nothing but the seed, and where the runs lie, is different."""
    return bool(first) and all(change.key in OWN or change.key == SEED for change in differences(first, second))


def group_name(names: Sequence[str]) -> str:
    """What the names have in common at their begin, or the first one, and how many there are."""
    if len(names) == 1:
        return names[0]
    same = sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False)))
    common = names[0][:same].removesuffix("seed-").rstrip("-_. ")
    return f"{common or names[0]} ({len(names)} seeds)"
