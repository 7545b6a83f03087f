"""The tags of a run: declared in tags.toml, each with unit, meaning and healthy range. No other tag is ever written.

A tag has one name everywhere (`reward/mean`). On a board, which sorts by name, the page stands before it: `1_learning/reward/mean`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

from corewarding.dataflow.ids import SOURCES, Channel
from corewarding.learner.objective.advantages import ZeroCause
from corewarding.learner.replay.events import DropReason
from corewarding.learner.replay.metrics import Fate
from corewarding.rewards.diagnostics import QUESTION_METRICS

Kind = Literal["scalar", "histogram", "text", "image"]

FILE = Path(__file__).with_name("tags.toml")
VALUES: dict[str, tuple[str, ...]] = {
    "source": SOURCES,
    "channel": get_args(Channel),
    "fate": get_args(Fate),
    "cause": get_args(ZeroCause),
    "reason": tuple(reason for part in get_args(DropReason) for reason in get_args(part) or (part,)),
    "moment": ("eval", "eval_quick"),
}
"""What a place in a name stands for; every other place stands for a number."""
_PLACE = re.compile(r"\{(\w+)\}")


class UndeclaredTagError(AssertionError):
    """A tag is written that tags.toml lacks. This is a bug of the program, not a mistake in its input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """One tag, or a family of them where the name has {places}."""

    name: str
    page: str
    number: int  # of the page
    unit: str
    text: str
    healthy: str
    default: bool = True
    kind: Kind = "scalar"
    below: float | None = None  # healthy values are
    above: float | None = None
    bound: str | None = None  # the key whose value it never exceeds

    @property
    def on_board(self) -> str:
        """Its name on a board."""
        return f"{self.number}_{self.page}/{self.name}"

    @property
    def description(self) -> str:
        """For a board, in Markdown."""
        return f"{self.text}\n\nUnit: {self.unit}. Healthy: {self.healthy}."

    @property
    def pattern(self) -> str:
        """A regular expression of all names of the family; a number is of digits."""
        parts = _PLACE.split(self.name)  # text, place, text, ...
        return "".join(
            f"(?P<{part}>{'|'.join(VALUES.get(part, (r'[0-9]+',)))})" if number % 2 else re.escape(part)
            for number, part in enumerate(parts)
        )

    def one(self, name: str) -> Tag | None:
        """This tag with its places filled as in `name`; None if `name` is not of the family."""
        found = re.fullmatch(self.pattern, name)
        if found is None:
            return None
        words = found.groupdict()
        return replace(self, name=name, text=_filled(self.text, words), healthy=_filled(self.healthy, words))


def _healthy(fields: dict[str, Any]) -> str:
    limits = [f"{side} {fields[side]:g}" for side in ("below", "above") if side in fields]
    return "; ".join([*limits, *filter(None, [fields.get("healthy")])])


def _filled(text: str, words: dict[str, str]) -> str:
    return _PLACE.sub(lambda place: words[place[1]], text)


@cache
def declared() -> tuple[Tag, ...]:
    """All tags and families, in the order of tags.toml."""
    content: dict[str, dict[str, dict[str, Any]]] = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return tuple(
        Tag(name=name, page=page, number=number, **fields | {"healthy": _healthy(fields)})
        for number, (page, tags) in enumerate(content.items(), start=1)
        for name, fields in tags.items()
    )


def names(family: Tag) -> list[str]:
    """All tags of a family that has no numbers in its name."""
    places = _PLACE.findall(family.name)
    return [
        family.name.format(**dict(zip(places, words, strict=True)))
        for words in product(*(VALUES[place] for place in places))
    ]


@cache
def _by_name() -> dict[str, Tag]:
    return {one.name: one for one in declared()}


@cache
def tag(name: str) -> Tag:
    """The declaration of this tag; a plug-in's metric is declared by its registration. UndeclaredTagError if there is none."""
    if (plain := _by_name().get(name)) is not None:
        return plain
    if found := next(filter(None, (one.one(name) for one in declared())), None):
        return found
    if name in QUESTION_METRICS:
        labels = next(one for one in declared() if one.page == "labels")
        text = " ".join((QUESTION_METRICS[name].__doc__ or "A metric of a plug-in.").split())
        return replace(labels, name=name, unit="of the plug-in", text=text, healthy="as the plug-in says")
    raise UndeclaredTagError(f"tag {name!r} is declared nowhere: say in {FILE} what it counts and means")


def check(names: Iterable[str]) -> None:
    """UndeclaredTagError unless all of these tags are declared."""
    for name in names:
        tag(name)
