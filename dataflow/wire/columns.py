"""Several carriers of one class as columns of their fields, which the codec sends in place of the carriers: what they have in common
once, and their arrays one after the other. Equal carriers give equal columns, whichever objects they share.

A column is a list, of N carriers:

    [SAME, value]                       one text, number or None that all have
    [SHARED, values, indices]           arrays or names, of which at most half differ: indices [N] into values
    [ARRAYS, dtype, lengths, bytes]     arrays with one axis and one dtype: lengths [N]
    [EACH, values]                      anything else: values [N]
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import accumulate, pairwise, repeat
from typing import Any

import numpy as np

from corewarding.dataflow.ids import AskedId, CompletionId, GroupId

SAME, SHARED, ARRAYS, EACH = range(4)
_PLAIN = frozenset({str, int, bool, type(None)})
"""Types whose equal values of one type are the same value. A float is not: 0.0 equals -0.0."""
_NAMES = frozenset({AskedId, GroupId, CompletionId})
DTYPES = frozenset({"<i4", "<i8", "<f4", "<f8", "|b1", "|u1"})
"""The arrays that travel."""


def little(array: np.ndarray) -> np.ndarray:
    """The array in little-endian byte order. TypeError for a dtype that does not travel."""
    found = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if found.dtype.str not in DTYPES:
        raise TypeError(f"arrays of dtype {array.dtype} do not travel")
    return found


def columns_of(carriers: Sequence[object], fields: Iterable[str]) -> list[list[Any]]:
    """A column for each of the fields. carriers: of one class."""
    return [_column([getattr(one, name) for one in carriers]) for name in fields]


def _column(values: list[Any]) -> list[Any]:
    first, kind = values[0], type(values[0])
    if any(type(value) is not kind for value in values):
        return [EACH, values]
    if kind in _PLAIN and all(value == first for value in values):
        return [SAME, first]
    if kind in _NAMES:
        return _shared(values, values) or [EACH, values]
    if kind is np.ndarray:
        return _arrays([little(value) for value in values])
    return [EACH, values]


def _arrays(arrays: list[np.ndarray]) -> list[Any]:
    raw = [array.tobytes() for array in arrays]
    dtypes = [array.dtype.str for array in arrays]
    shared = _shared(list(zip(dtypes, [array.shape for array in arrays], raw, strict=True)), arrays)
    if shared is not None:
        return shared
    if len(set(dtypes)) == 1 and all(array.ndim == 1 for array in arrays):
        return [ARRAYS, dtypes[0], [len(array) for array in arrays], b"".join(raw)]
    return [EACH, arrays]


def _shared(keys: Sequence[Hashable], values: Sequence[Any]) -> list[Any] | None:
    """The column of values that are equal where their keys are. None if more than half of them differ."""
    numbers: dict[Hashable, int] = {}
    indices = [numbers.setdefault(key, len(numbers)) for key in keys]
    if 2 * len(numbers) > len(values):
        return None
    firsts = dict(zip(reversed(indices), reversed(values), strict=True))
    return [SHARED, [firsts[number] for number in range(len(numbers))], indices]


def values_of(column: object, num: int) -> tuple[list[Any], Iterable[Any]]:
    """(the values that differ, the values of all `num` carriers). ValueError for anything that is no column of so many. A value that
    many carriers share is one that none of them copies: so columns take little more memory than they say."""
    match column:
        case [0, value] if type(value) in _PLAIN:
            return [value], repeat(value, num)
        case [1, list() as values, list() as indices] if len(indices) == num:
            if not all(type(value) in _NAMES or type(value) is np.ndarray for value in values):
                raise ValueError("a column shares what is neither an array nor a name")
            if not all(type(index) is int and 0 <= index < len(values) for index in indices):
                raise ValueError("a column shares more values than it holds")
            return values, map(values.__getitem__, indices)
        case [2, str() as dtype, list() as lengths, bytes() as raw] if len(lengths) == num:
            arrays = _split(dtype, lengths, raw)
            return arrays, arrays
        case [3, list() as values] if len(values) == num:
            return values, values
    raise ValueError(f"no column of {num} values")


def _split(dtype: str, lengths: list[Any], raw: bytes) -> list[np.ndarray]:
    if dtype not in DTYPES or not all(type(length) is int and length >= 0 for length in lengths):
        raise ValueError(f"no column of arrays of dtype {dtype!r}")
    whole = np.frombuffer(raw, dtype=dtype)
    if sum(lengths) != len(whole):
        raise ValueError("a column of arrays has not the length that it says")
    return [whole[start:end] for start, end in pairwise(accumulate(lengths, initial=0))]
