"""Checks, without a model, whether a rephrasing can replace its original wording.

A pair that looks wrong is reported, never repaired. A new rephrasing must pass the same checks before it is kept.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Problem = Literal["identical", "empty", "number lost", "number new", "much shorter", "much longer"]

SHORTEST, LONGEST = 0.4, 4.0  # of the original's length in words
_NUMBER = re.compile(r"(?<![\w.])[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?|[0-9]*\.[0-9]+|[0-9]+")
_ORDER = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty"""
_OTHERS = {
    "half": 2,
    "third": 3,
    "quarter": 4,
    "twice": 2,
    "double": 2,
    "thrice": 3,
    "triple": 3,
    "dozen": 12,
    "hundred": 100,
}
_NAMES = {name: number for number, name in enumerate(_ORDER.split())} | _OTHERS
_NAME = re.compile(rf"\b({'|'.join(_NAMES)})(?:s|th|ths)?\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PairReport:
    """One problem of a pair; `detail` says which numbers or how many words."""

    problem: Problem
    detail: str


def check_pair(original: str, rephrased: str) -> list[PairReport]:
    """The problems of `rephrased` as another wording of `original`; empty if there are none.

    Numbers are compared by value, written in digits or words. A rephrasing may repeat a number and write "two" for 2. One, two and
    three may be added or dropped as words ("one of them", "two people").
    """
    if not rephrased.strip():
        return [PairReport("empty", "no text")]
    if _plain(original) == _plain(rephrased):
        return [PairReport("identical", "the same words")]
    found: list[PairReport] = []
    before, after = numbers_of(original), numbers_of(rephrased)
    named = {Fraction(n) for n in (1, 2, 3)}
    lost = sorted(before.keys() - after.keys() - (named - digits_of(original).keys()))
    new = sorted(after.keys() - before.keys() - (named - digits_of(rephrased).keys()))
    if lost:
        found.append(PairReport("number lost", ", ".join(map(str, lost))))
    if new:
        found.append(PairReport("number new", ", ".join(map(str, new))))
    ratio = len(rephrased.split()) / max(1, len(original.split()))
    if ratio < SHORTEST:
        found.append(PairReport("much shorter", f"{ratio:.2f} times the words"))
    if ratio > LONGEST:
        found.append(PairReport("much longer", f"{ratio:.2f} times the words"))
    return found


def digits_of(text: str) -> Counter[Fraction]:
    """Numbers written in digits, by value."""
    return Counter(Fraction(number.replace(",", "")) for number in _NUMBER.findall(text))


def numbers_of(text: str) -> Counter[Fraction]:
    """Numbers written in digits or as a word up to twenty, by value."""
    return digits_of(text) + Counter(Fraction(_NAMES[name.lower()]) for name in _NAME.findall(text))


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+|[^\w\s]", text.lower()))
