"""The panels of the page: the charts of every board, the histogram of ages and the lanes, each with what its tags mean and which knob
to turn. All texts are those of tags.toml and troubles.toml."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from corewarding.launch.report.board.layout import CHARTS
from corewarding.launch.report.board.tags import Tag, declared, names, tag
from corewarding.launch.report.board.troubles import troubles

AGES, LANES = "how old the trained questions are", "who does what, and when?"
"""Titles of the two panels that no other board has."""
_MORE = {"staleness": {AGES: ("staleness/question",)}, "throughput": {LANES: ("time/learner_idle_frac",)}}
_KINDS = {AGES: "ages", LANES: "lanes"}


@cache
def panels() -> tuple[dict[str, Any], ...]:
    """JSON-ready, in the order of the page."""
    return tuple(_panels())


def shown() -> list[str]:
    """The tags of all panels."""
    return list(dict.fromkeys(one["name"] for panel in panels() for one in panel["tags"]))


def _panels() -> Iterator[dict[str, Any]]:
    families = {one.name: one for one in declared()}
    for page, charts in CHARTS.items():
        for title, tags in {**_MORE.get(page, {}), **charts}.items():
            found = [tag(name) for family in tags for name in names(families[family])]
            yield {
                "page": page,
                "title": title,
                "kind": _KINDS.get(title, "curves"),
                "tags": [_tag(one) for one in found],
                "turn": [[one.see, one.means, one.turn] for one in troubles() if title in one.charts],
            }


def _tag(one: Tag) -> dict[str, Any]:
    limit = one.below if one.below is not None else one.above
    return {"name": one.name, "unit": one.unit, "text": one.text, "healthy": one.healthy, "limit": limit}
