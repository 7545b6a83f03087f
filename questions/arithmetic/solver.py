"""Solves the arithmetic world's problems. Only `questions.arithmetic` imports it, so no rule can reach an answer."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

from corewarding.questions.arithmetic.wordings import Operation

SYMBOLS: dict[str, tuple[str, Callable[[int, int], int]]] = {
    "add": ("+", operator.add),
    "subtract": ("-", operator.sub),
    "multiply": ("*", operator.mul),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One calculation: `left symbol right = result`."""

    left: int
    symbol: str
    right: int
    result: int


def solve(operation: Operation, operands: tuple[int, ...]) -> tuple[Step, ...]:
    """The calculations of a problem in order; the last result is the answer.

    Each word of `operation` consumes one more operand: ("multiply_add", (a, b, c)) is a * b, then + c. ValueError if
    the number of operands does not fit.
    """
    words = operation.split("_")
    if len(operands) != len(words) + 1:
        raise ValueError(f"{operation} takes {len(words) + 1} operands, got {operands}")
    steps: list[Step] = []
    value = operands[0]
    for word, right in zip(words, operands[1:], strict=True):
        symbol, function = SYMBOLS[word]
        steps.append(Step(left=value, symbol=symbol, right=right, result=function(value, right)))
        value = steps[-1].result
    return tuple(steps)
