"""What a sweep varies: a key with a list of values, or with a range, as `--over` writes them.

`staleness.max=0,1,2,4` is a list, each value read as YAML; `train.lr=1e-6..1e-4` a range, `log:1e-6..1e-4` one by its logarithm.
A range between whole numbers holds whole numbers, both ends included.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel

from corewarding.dataflow.errors import UserError
from corewarding.launch.config.checks import NAMES
from corewarding.launch.config.load import validate
from corewarding.launch.config.tree import TrainConfig

_RANGE = re.compile(r"(?P<log>log:)?(?P<low>[^,.\[{]\S*?|\.\d+)\.\.(?P<high>\S+)")
_OWN = {"run.name": "the trials get names of their own", "run.root": "--root says where trials go", "run.resume": ""}
"""Keys that a sweep sets itself."""


class SweepError(UserError):
    """A sweep that cannot be made as it was asked for."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from low to high."""

    low: float
    high: float
    log: bool
    whole: bool

    def text(self, value: float) -> str:
        """A value of this range as a command line has it, short, and inside the range."""
        if self.whole:
            return str(round(value))
        short = float(f"{value:.6g}")
        return repr(min(max(short, self.low), self.high))


@dataclass(frozen=True, slots=True)
class Axis:
    """A key and what it takes: texts of values, each as in `key=value`, or a range."""

    key: str
    values: tuple[str, ...] = ()
    range: Range | None = None

    @property
    def words(self) -> str:
        """As `--over` has it, without the key."""
        if self.range is None:
            return ",".join(self.values)
        return (
            f"{'log:' if self.range.log else ''}{self.range.text(self.range.low)}..{self.range.text(self.range.high)}"
        )


def read_axes(words: Sequence[str], base: TrainConfig) -> list[Axis]:
    """The axes of all `--over`. SweepError or ConfigError names a key that does not exist and a value that the key cannot take."""
    axes = [_read_axis(word) for word in words]
    keys = [axis.key for axis in axes]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise SweepError(f"--over {twice} is given twice: write all its values in one list, --over {twice}=A,B")
    for axis in axes:
        if 0 in base.schedules.get(axis.key, {}):
            raise SweepError(
                f"--over {axis.key}: schedules gives this key its value from update 0 on, so a swept one would never be used; remove "
                f"it from schedules, or sweep them: --over 'schedules={{{axis.key}: {{0: A}}}},{{{axis.key}: {{0: B}}}}'"
            )
        first: dict[str, str] = {}  # value: as it was written
        for text in axis.values or (axis.range.text(axis.range.low), axis.range.text(axis.range.high)):  # type: ignore[union-attr]
            value = _checked_value(axis.key, text, base)
            if repr(value) in first:
                raise SweepError(
                    f"--over {axis.key}: {first[repr(value)]} and {text} are the same value; remove one of them"
                )
            first[repr(value)] = text
    return axes


def with_values(base: TrainConfig, point: Mapping[str, str]) -> dict[str, Any]:
    """The content of `base` with the point's values."""
    content = base.model_dump(mode="json")
    for key, text in point.items():
        *sections, last = key.split(".")
        inside = content
        for section in sections:
            inside = inside[section]
        inside[last] = yaml.safe_load(text)
    return content


def _read_axis(word: str) -> Axis:
    name, equals, text = word.partition("=")
    key = name.replace("-", "_").strip()
    if not equals:
        raise SweepError(f"--over {word}: write KEY=VALUES, for example --over staleness.max=0,1,2,4")
    _check_key(key)
    if not text.strip():
        raise SweepError(
            f"--over {key}= has no values; write them as a list, --over {key}=A,B, or as a range, LOW..HIGH"
        )
    if found := _RANGE.fullmatch(text.strip()):
        return Axis(key, range=_read_range(key, found))
    values = tuple(_split(text))
    if "" in values:
        raise SweepError(f"--over {word} has an empty value: remove the comma that is too many")
    if len(set(values)) < len(values):
        raise SweepError(f"--over {word} has a value twice; the seeds of --seeds repeat a point")
    return Axis(key, values)


def _read_range(key: str, found: re.Match[str]) -> Range:
    low, high = found["low"], found["high"]
    try:
        numbers = float(low), float(high)
    except ValueError:
        raise SweepError(f"--over {key}={found[0]}: a range is LOW..HIGH of two numbers, such as 1e-6..1e-4") from None
    if not numbers[0] < numbers[1]:
        raise SweepError(f"--over {key}={found[0]}: the first number of a range must be less than the second")
    if found["log"] and numbers[0] <= 0:
        raise SweepError(f"--over {key}={found[0]}: a range by logarithm begins above 0")
    whole = all(re.fullmatch(r"[+-]?\d+", bound) for bound in (low, high))
    return Range(*numbers, log=bool(found["log"]), whole=whole)


def _split(text: str) -> Iterator[str]:
    """The values between commas, apart from commas inside brackets or quotes."""
    depth, quote, start = 0, "", 0
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and depth == 0:
            yield text[start:place].strip()
            start = place + 1
    yield text[start:].strip()


def _check_key(key: str) -> None:
    if key in _OWN or key == "plugins":
        raise SweepError(f"--over {key}: this key cannot be swept" + (f", {_OWN[key]}" if _OWN.get(key) else ""))
    known = list(_keys(TrainConfig))
    if inside := [one for one in known if one.startswith(f"{key}.")]:
        raise SweepError(f"--over {key}: {key} is a section; sweep one of its keys, such as {inside[0]}")
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "docs/configuration.md lists all keys"
        raise SweepError(f"--over: unknown key {key}; {hint}")


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _keys(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _checked_value(key: str, text: str, base: TrainConfig) -> object:
    """The value that the text means. Refuses one that the key cannot take, whatever the other keys are."""
    try:
        content = with_values(base, {key: text})
    except yaml.YAMLError as error:
        raise SweepError(f"--over {key}: {text} is not YAML: {error}") from error
    found: Any = validate(content, where="--over")
    if key in NAMES and yaml.safe_load(text) not in NAMES[key]:
        raise SweepError(f"--over {key}: {NAMES[key].unknown(text)}")
    for part in key.split("."):
        found = getattr(found, part)
    return found
