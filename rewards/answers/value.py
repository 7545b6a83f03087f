"""The value of an expression tree: exact if it is rational, else to 40 digits; at fixed points if it has letters.

Two expressions are equal if their values are. No algebra is done, so nothing can hang: numbers have a bounded size, and what exceeds
the bounds raises OutOfBoundsError. Expressions with letters are compared at fixed points (a letter's values depend on its name
alone), as in randomized identity testing: different polynomials of degree d agree at a point drawn from n values with probability
d / n, n here about 10^40 (Schwartz, https://doi.org/10.1145/322217.322225).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from corewarding.rewards.answers.operations import (
    CONSTANTS,
    OPERATIONS,
    TINY,
    TRIGONOMETRIC,
    OutOfBoundsError,
    Value,
    bounded,
    ctx,
    fraction,
    inexact,
    mpf,
)
from corewarding.rewards.answers.parser import Node

SMALLEST = 1e-60  # a smaller value is no rounding error of 0
SHOWN = 20  # significant digits that tell two values apart
MAX_DENOMINATOR = 10**6  # a 40-digit value this near to a fraction with a smaller denominator is that fraction
NUM_POINTS = 3
WIDE_POINTS = ((20, 120), (20, 120), (1000, 2000))  # sizes at further points


def letters_of(node: Node) -> frozenset[str]:
    """Names of the letters in an expression."""
    found: set[str] = set()
    stack = [node]
    while stack:
        one = stack.pop()
        if one.head == "letter":
            found.add(str(one.value))
        stack.extend(one.children)
    return frozenset(found)


def point(letter: str, number: int) -> Value:
    """The value of `letter` at point `number`, fixed by its name.

    Below NUM_POINTS of size 0.25 to 2.25, positive at even points and negative at odd ones. From there on large, with a sign that
    differs between letters: at such points floors, absolute values and roots of squares tell their arguments apart.
    """
    digest = hashlib.blake2b(f"{letter}/{number}".encode(), digest_size=20).digest()
    share = ctx.mpf(int.from_bytes(digest, "big")) / 2**160
    if number <= NUM_POINTS:
        size = share * 2 + ctx.mpf("0.25")
    else:
        low, high = WIDE_POINTS[number - NUM_POINTS - 1]
        size = low + (high - low) * share
        number += sum(letter.encode())
    return size if number % 2 == 0 else -size


def fingerprint(node: Node) -> str:
    """The same text for expressions of equal value: "3/4", "~1.4142135623730950488", or the values at all points."""
    letters = letters_of(node)
    if not letters:
        return shown(evaluate(node, {}))
    values = _at_points(node, letters, range(NUM_POINTS))
    if all(_near(value, values[0]) for value in values[1:]):
        return shown(values[0])
    return "f:" + "|".join(shown(value, identify=False) for value in values)


def proportion(node: Node, *, signed: bool) -> str:
    """The same text for expressions that differ by a constant factor (with `signed`: by a positive one)."""
    values = _at_points(node, letters_of(node), range(NUM_POINTS + 1))
    scale = abs(inexact(values[0])) if signed else inexact(values[0])
    if abs(scale) < TINY:
        raise OutOfBoundsError("zero at the first point")
    return "|".join(shown(inexact(value) / scale, identify=False) for value in values)


def _at_points(node: Node, letters: frozenset[str], small: range) -> list[Value]:
    """The values at the small points, and for a function with kinks at the wide ones."""
    wide = range(NUM_POINTS + 1, NUM_POINTS + 1 + len(WIDE_POINTS)) if _has_kinks(node) else ()
    return [evaluate(node, {letter: point(letter, number) for letter in letters}) for number in (*small, *wide)]


def _has_kinks(node: Node) -> bool:
    """Whether the function may be another one elsewhere: |x - 3| is 3 - x at all small points."""
    if node.head == "pow":
        base, exponent = node.children
        whole = _whole(exponent)
        if base.head == "abs" and whole is not None and whole % 2 == 0:  # |x|^2 is x^2
            return any(map(_has_kinks, base.children))
        kinked = whole is None and not letters_of(exponent)
    else:
        kinked = node.head in ("abs", "floor", "ceil") or (node.head == "root" and not letters_of(node.children[1]))
    return (kinked and bool(letters_of(node.children[0]))) or any(map(_has_kinks, node.children))


def _whole(node: Node) -> int | None:
    """The value of a constant expression that is an integer."""
    if letters_of(node):
        return None
    try:
        value = evaluate(node, {})
    except OutOfBoundsError:
        return None
    return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else None


def shown(value: Value, *, identify: bool = True) -> str:
    """The value as text; equal values have equal texts."""
    if isinstance(value, Fraction):
        return str(value)
    if ctx.isnan(value):
        raise OutOfBoundsError("not a number")
    real, imaginary = inexact(value).real, inexact(value).imag
    size = max(abs(real), abs(imaginary))
    if 0 < size < SMALLEST:
        raise OutOfBoundsError("a number that would pass for 0")
    parts = [_real(real, size, identify), _real(imaginary, size, identify)]
    if parts[1] == "0":
        return parts[0]
    return f"{parts[0]}+({parts[1]})i"


def _real(x: Any, size: Any, identify: bool) -> str:
    if ctx.isinf(x):
        return "inf" if x > 0 else "-inf"
    if abs(x) <= TINY * max(size, 1):
        return "0"
    if identify and abs(x) < 10**12:
        exact = fraction(x).limit_denominator(MAX_DENOMINATOR)
        if abs(x - mpf(exact)) < TINY * max(1, abs(x)):
            return str(exact)
    return "~" + str(ctx.nstr(x, SHOWN, strip_zeros=True))


def _near(one: Value, other: Value) -> bool:
    difference = abs(inexact(one) - inexact(other))
    return bool(difference <= TINY * max(1, abs(inexact(one))))


def evaluate(node: Node, at: Mapping[str, Value]) -> Value:
    """The value for the letters' values in `at`. Raises OutOfBoundsError if there is none."""
    if node.head == "number":
        assert isinstance(node.value, Fraction)
        return bounded(node.value)
    if node.head == "letter":
        return at[str(node.value)]
    if node.head == "constant":
        return CONSTANTS[str(node.value)]
    operation = OPERATIONS.get(node.head)
    if operation is None:
        raise OutOfBoundsError(f"{node.head} has no value")
    values = [evaluate(child, at) for child in node.children]
    try:
        if node.head in TRIGONOMETRIC and _has(node, "degrees"):
            values[0] = values[0] * ctx.pi / 180
        return operation(*values)
    except (ZeroDivisionError, OverflowError, ValueError) as error:
        raise OutOfBoundsError(str(error)) from error


def _has(node: Node, head: str) -> bool:
    return node.head == head or any(_has(child, head) for child in node.children)
