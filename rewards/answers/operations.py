"""Arithmetic on values: exact where both are fractions, else to 40 digits. Every result has a bounded size; an operation without a
result, or with one beyond the bounds, raises OutOfBoundsError.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from mpmath.ctx_mp import MPContext

DIGITS = 40  # of every operation
MAX_BITS = 12_000  # of an exact number; larger ones are rounded to 40 digits
LARGEST_RATIO = 1e20  # of the parts of a sum: beyond it the smaller one would not show
MAX_LOG = 1e6  # of a power's natural logarithm

ctx: Any = MPContext()
ctx.dps = DIGITS
TINY = ctx.mpf(10) ** -28
Value = Any  # Fraction, or a number of ctx


class OutOfBoundsError(ValueError):
    """The expression has no value, or one that is too large to be worth computing."""


def fraction(x: Any) -> Fraction:
    """The exact value of a real number of ctx."""
    sign, mantissa, exponent, _ = x._mpf_
    value = Fraction(int(mantissa)) * (Fraction(2) ** int(exponent))
    return -value if sign else value


def mpf(value: Fraction) -> Any:
    """A fraction as a real number of ctx."""
    return ctx.mpf(value.numerator) / value.denominator


def inexact(value: Value) -> Any:
    """A value as a complex number of ctx."""
    return ctx.mpc(mpf(value)) if isinstance(value, Fraction) else ctx.mpc(value)


def bounded(value: Fraction) -> Value:
    """The fraction itself, or 40 digits of it if it has more than MAX_BITS."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        return mpf(value)
    return value


def _both(one: Value, other: Value) -> bool:
    return isinstance(one, Fraction) and isinstance(other, Fraction)


def _add(one: Value, other: Value) -> Value:
    if _both(one, other):
        return bounded(one + other)
    one, other = inexact(one), inexact(other)
    small, large = sorted((abs(one), abs(other)))
    if large > small * LARGEST_RATIO and small > 1e-6 and not ctx.isinf(large):
        raise OutOfBoundsError("a sum that loses its smaller part")
    return one + other


def _multiply(one: Value, other: Value) -> Value:
    return bounded(one * other) if _both(one, other) else inexact(one) * inexact(other)


def _divide(one: Value, other: Value) -> Value:
    if other == 0 or (not isinstance(other, Fraction) and abs(other) < TINY**2):
        raise OutOfBoundsError("division by zero")
    return bounded(one / other) if _both(one, other) else inexact(one) / inexact(other)


def _power(base: Value, exponent: Value) -> Value:
    if _both(base, exponent) and exponent.denominator == 1:
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if base == 0 and exponent < 0:
            raise OutOfBoundsError("division by zero")
        if bits * abs(exponent.numerator) <= MAX_BITS:
            return base**exponent.numerator
    if _both(base, exponent) and 1 < exponent.denominator <= 12 and base >= 0:
        root = _exact_root(base, exponent.denominator)
        if root is not None:
            return _power(root, Fraction(exponent.numerator))
    base, exponent = inexact(base), inexact(exponent)
    if base == 0:
        if exponent.real <= 0:
            raise OutOfBoundsError("a power of zero")
        return Fraction(0)
    if abs(exponent) * (abs(ctx.log(abs(base))) + 4) > MAX_LOG:
        raise OutOfBoundsError("a power beyond all bounds")
    return ctx.power(base, exponent)


def _exact_root(value: Fraction, n: int) -> Fraction | None:
    """The n-th root of value >= 0; None if it is not rational."""
    parts = []
    for integer in (value.numerator, value.denominator):
        root = math.isqrt(integer) if n == 2 else _integer_root(integer, n)
        if root**n != integer:
            return None
        parts.append(root)
    return Fraction(parts[0], parts[1])


def _integer_root(value: int, n: int) -> int:
    low, high = 0, 1 << -(-value.bit_length() // n)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**n <= value else (low, middle - 1)
    return low


def _root(value: Value, index: Value) -> Value:
    if not isinstance(index, Fraction) or index.denominator != 1 or not 0 < index <= 100:
        return _power(value, _divide(Fraction(1), index))
    if isinstance(value, Fraction) and value < 0 and index % 2 == 1:  # the real one
        return _negate(_root(-value, index))
    return _power(value, 1 / index)


def _negate(value: Value) -> Value:
    return -value


def _whole(value: Value) -> int:
    if not isinstance(value, Fraction) or value.denominator != 1 or value < 0:
        raise OutOfBoundsError("a whole number is wanted")
    return value.numerator


def _factorial(value: Value) -> Value:
    n = _whole(value)
    if n > 10_000:
        raise OutOfBoundsError("a factorial beyond all bounds")
    return Fraction(math.factorial(n)) if n <= 1_000 else ctx.factorial(n)


def _binomial(n: Value, k: Value) -> Value:
    whole, chosen = _whole(n), _whole(k)
    if whole > 2_000:
        raise OutOfBoundsError("a binomial beyond all bounds")
    return bounded(Fraction(math.comb(whole, chosen)))


def _log(value: Value, base: Value = Fraction(10)) -> Value:
    if value == 0 or base in (0, 1):
        raise OutOfBoundsError("a logarithm of zero")
    return ctx.log(inexact(value)) / ctx.log(inexact(base))


def _exp(value: Value) -> Value:
    if abs(inexact(value)) > MAX_LOG:
        raise OutOfBoundsError("a power beyond all bounds")
    return ctx.exp(inexact(value))


def _of(name: str, *, limit: float = 1e12) -> Any:
    function = getattr(ctx, name)

    def apply(value: Value) -> Value:
        if abs(inexact(value)) > limit:
            raise OutOfBoundsError(f"{name} of something huge")
        return function(inexact(value))

    return apply


def _abs(value: Value) -> Value:
    return abs(value)


def _rounded(round_: Any) -> Any:
    def apply(value: Value) -> Value:
        if isinstance(value, Fraction):
            return Fraction(round_(value))
        if abs(value) > 1e30 or abs(inexact(value).imag) > TINY:
            raise OutOfBoundsError("cannot be rounded")
        return Fraction(round_(fraction(inexact(value).real)))

    return apply


TRIGONOMETRIC = ("sin", "cos", "tan", "cot", "sec", "csc")
CONSTANTS: dict[str, Value] = {"pi": +ctx.pi, "e": +ctx.e, "i": ctx.mpc(0, 1), "inf": ctx.inf}
OPERATIONS: dict[str, Any] = {
    "add": _add,
    "neg": _negate,
    "mul": _multiply,
    "div": _divide,
    "pow": _power,
    "root": _root,
    "factorial": _factorial,
    "binomial": _binomial,
    "abs": _abs,
    "group": lambda value: value,
    "degrees": lambda value: value,
    "unit": lambda value: value,
    "percent": lambda value: _divide(value, Fraction(100)),
    "floor": _rounded(math.floor),
    "ceil": _rounded(math.ceil),
    "log": _log,
    "lg": _log,
    "ln": lambda value: _log(value, CONSTANTS["e"]),
    "exp": _exp,
    **{name: _of(name) for name in TRIGONOMETRIC},
    **{name: _of(name, limit=1e4) for name in ("sinh", "cosh", "tanh")},
    **{f"arc{name}": _of(f"a{name}") for name in (*TRIGONOMETRIC, "sinh", "cosh", "tanh")},
}
