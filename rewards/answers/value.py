"""The value of an expression tree: exact where it is rational, else to 40 digits, at fixed points where it has letters.

Two expressions are the same when their values are, so no algebra is done and none can hang: every operation is on numbers of
bounded size, and what would exceed the bounds raises OutOfBoundsError. Identities between expressions with letters are decided at
three fixed points (the values of a letter are drawn once, from its name), as in randomized identity testing: different
polynomials of degree d agree at a point drawn from n values with probability d / n, n here about 10^40
(Schwartz, https://doi.org/10.1145/322217.322225).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from mpmath.ctx_mp import MPContext

from corewarding.rewards.answers.parser import Node

DIGITS = 40  # of every operation
SHOWN = 20  # significant digits that tell two values apart
MAX_BITS = 12_000  # of an exact number; larger ones go on as 40 digits
MAX_LOG = 1e6  # of a power's natural logarithm
MAX_DENOMINATOR = 10**6  # a 40-digit value this near to a fraction with a smaller denominator is that fraction
NUM_POINTS = 3

ctx: Any = MPContext()
ctx.dps = DIGITS
_TINY = ctx.mpf(10) ** -28
Value = Any  # Fraction, or a number of ctx


class OutOfBoundsError(ValueError):
    """The expression has no value, or one that is too large to be worth computing."""


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
    """What `letter` stands for at point `number`: a fixed number, positive at even points and negative at odd ones."""
    digest = hashlib.blake2b(f"{letter}/{number}".encode(), digest_size=20).digest()
    size = ctx.mpf(int.from_bytes(digest, "big")) / 2**160 * 2 + ctx.mpf("0.25")
    return size if number % 2 == 0 else -size


def fingerprint(node: Node) -> str:
    """Equal for expressions of equal value: "3/4", "~1.4142135623730950488", or the values at all points."""
    letters = letters_of(node)
    if not letters:
        return shown(evaluate(node, {}))
    values = [evaluate(node, {letter: point(letter, number) for letter in letters}) for number in range(NUM_POINTS)]
    if all(_near(value, values[0]) for value in values[1:]):
        return shown(values[0])
    return "f:" + "|".join(shown(value, identify=False) for value in values)


def proportion(node: Node, *, signed: bool) -> str:
    """Equal for expressions that differ by a constant factor (by a positive one where signed)."""
    letters = letters_of(node)
    values = [evaluate(node, {letter: point(letter, number) for letter in letters}) for number in range(NUM_POINTS + 1)]
    scale = abs(_inexact(values[0])) if signed else _inexact(values[0])
    if abs(scale) < _TINY:
        raise OutOfBoundsError("zero at the first point")
    return "|".join(shown(_inexact(value) / scale, identify=False) for value in values)


def shown(value: Value, *, identify: bool = True) -> str:
    """The value as text, one text for one value."""
    if isinstance(value, Fraction):
        return str(value)
    if ctx.isnan(value):
        raise OutOfBoundsError("not a number")
    real, imaginary = _inexact(value).real, _inexact(value).imag
    size = max(abs(real), abs(imaginary))
    parts = [_real(real, size, identify), _real(imaginary, size, identify)]
    if parts[1] == "0":
        return parts[0]
    return f"{parts[0]}+({parts[1]})i"


def _real(x: Any, size: Any, identify: bool) -> str:
    if ctx.isinf(x):
        return "inf" if x > 0 else "-inf"
    if abs(x) <= _TINY * max(size, 1):
        return "0"
    if identify and abs(x) < 10**12:
        exact = _fraction(x).limit_denominator(MAX_DENOMINATOR)
        if abs(x - _mpf(exact)) < _TINY * max(1, abs(x)):
            return str(exact)
    return "~" + str(ctx.nstr(x, SHOWN, strip_zeros=True))


def _fraction(x: Any) -> Fraction:
    sign, mantissa, exponent, _ = x._mpf_
    value = Fraction(int(mantissa)) * (Fraction(2) ** int(exponent))
    return -value if sign else value


def _mpf(value: Fraction) -> Any:
    return ctx.mpf(value.numerator) / value.denominator


def _inexact(value: Value) -> Any:
    return ctx.mpc(_mpf(value)) if isinstance(value, Fraction) else ctx.mpc(value)


def _near(one: Value, other: Value) -> bool:
    difference = abs(_inexact(one) - _inexact(other))
    return bool(difference <= _TINY * max(1, abs(_inexact(one))))


def _bounded(value: Fraction) -> Value:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        return _mpf(value)
    return value


def evaluate(node: Node, at: Mapping[str, Value]) -> Value:
    """The value where each letter has the value `at` gives it. OutOfBoundsError where there is none."""
    operation = _OPERATIONS.get(node.head)
    if node.head == "number":
        assert isinstance(node.value, Fraction)
        return _bounded(node.value)
    if node.head == "letter":
        return at[str(node.value)]
    if node.head == "constant":
        return _CONSTANTS[str(node.value)]
    if node.head in ("sin", "cos", "tan", "cot", "sec", "csc") and _has(node, "degrees"):
        return operation(evaluate(node.children[0], at) * ctx.pi / 180) if operation else None
    if operation is None:
        raise OutOfBoundsError(f"{node.head} has no value")
    try:
        return operation(*(evaluate(child, at) for child in node.children))
    except (ZeroDivisionError, OverflowError, ValueError) as error:
        raise OutOfBoundsError(str(error)) from error


def _has(node: Node, head: str) -> bool:
    return node.head == head or any(_has(child, head) for child in node.children)


def _both(one: Value, other: Value) -> bool:
    return isinstance(one, Fraction) and isinstance(other, Fraction)


def _add(one: Value, other: Value) -> Value:
    return _bounded(one + other) if _both(one, other) else _inexact(one) + _inexact(other)


def _multiply(one: Value, other: Value) -> Value:
    return _bounded(one * other) if _both(one, other) else _inexact(one) * _inexact(other)


def _divide(one: Value, other: Value) -> Value:
    if other == 0 or (not isinstance(other, Fraction) and abs(other) < _TINY**2):
        raise OutOfBoundsError("division by zero")
    return _bounded(one / other) if _both(one, other) else _inexact(one) / _inexact(other)


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
    base, exponent = _inexact(base), _inexact(exponent)
    if base == 0:
        if exponent.real <= 0:
            raise OutOfBoundsError("a power of zero")
        return Fraction(0)
    if abs(exponent) * (abs(ctx.log(abs(base))) + 4) > MAX_LOG:
        raise OutOfBoundsError("a power beyond all bounds")
    return ctx.power(base, exponent)


def _exact_root(value: Fraction, n: int) -> Fraction | None:
    """The n-th root of value >= 0 where it is rational."""
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
    return _bounded(Fraction(math.comb(whole, chosen)))


def _log(value: Value, base: Value = Fraction(10)) -> Value:
    if value == 0 or base in (0, 1):
        raise OutOfBoundsError("a logarithm of zero")
    return ctx.log(_inexact(value)) / ctx.log(_inexact(base))


def _exp(value: Value) -> Value:
    if abs(_inexact(value)) > MAX_LOG:
        raise OutOfBoundsError("a power beyond all bounds")
    return ctx.exp(_inexact(value))


def _of(name: str, *, limit: float = 1e12) -> Any:
    function = getattr(ctx, name)

    def apply(value: Value) -> Value:
        if abs(_inexact(value)) > limit:
            raise OutOfBoundsError(f"{name} of something huge")
        return function(_inexact(value))

    return apply


def _abs(value: Value) -> Value:
    return abs(value)


def _rounded(round_: Any) -> Any:
    def apply(value: Value) -> Value:
        if isinstance(value, Fraction):
            return Fraction(round_(value))
        if abs(value) > 1e30 or abs(_inexact(value).imag) > _TINY:
            raise OutOfBoundsError("cannot be rounded")
        return Fraction(round_(_fraction(_inexact(value).real)))

    return apply


_CONSTANTS: dict[str, Value] = {"pi": +ctx.pi, "e": +ctx.e, "i": ctx.mpc(0, 1), "inf": ctx.inf}
_OPERATIONS: dict[str, Any] = {
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
    "ln": lambda value: _log(value, _CONSTANTS["e"]),
    "exp": _exp,
    "arcsin": _of("asin"),
    "arccos": _of("acos"),
    "arctan": _of("atan"),
    **{name: _of(name) for name in ("sin", "cos", "tan", "cot", "sec", "csc")},
    **{name: _of(name, limit=1e4) for name in ("sinh", "cosh", "tanh")},
}
