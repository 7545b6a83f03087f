"""Checks what arrives from outside against the annotations of the type that it is to become."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

Check = Callable[[object], bool]


class FieldTypeError(ValueError):
    """A field holds a value of another type than declared."""

    def __init__(self, cls: type, name: str, value: object) -> None:
        super().__init__(f"{cls.__name__}.{name} cannot be a {_kind(value)}")


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array"
    return type(value).__name__


def checks_of(cls: type) -> dict[str, Check]:
    """For each field of a dataclass, whether a value is of its declared type, all items of containers included.

    TypeError for an annotation that is not understood.
    """
    hints = get_type_hints(cls)
    return {field.name: _check(hints[field.name]) for field in dataclasses.fields(cls)}


def refuse_other_types(cls: type, checks: Mapping[str, Check], values: Mapping[str, object]) -> None:
    """FieldTypeError that names the first field whose value is of another type."""
    for name, check in checks.items():
        if not check(values[name]):
            raise FieldTypeError(cls, name, values[name])


def _check(hint: Any) -> Check:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value: True
    if hint is None or hint is types.NoneType:
        return lambda value: value is None
    if origin is Literal:
        return lambda value: isinstance(value, str | int) and value in arguments
    if origin in (Union, types.UnionType):
        return _either([_check(one) for one in arguments])
    if hint is float:
        return lambda value: isinstance(value, float | int) and not isinstance(value, bool)
    if hint is int:
        return lambda value: isinstance(value, int) and not isinstance(value, bool)
    if origin is np.ndarray:
        dtype = np.dtype(get_args(arguments[1])[0])
        return lambda value: isinstance(value, np.ndarray) and value.dtype == dtype
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        return _fixed([_check(one) for one in arguments])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(*(_check(one) for one in arguments))
    if isinstance(origin, type) and issubclass(origin, Sequence):
        kind: tuple[type[Sequence[object]], ...] = (origin,) if origin in (tuple, list) else (tuple, list)
        return _sequence(kind, _check(arguments[0]))
    if isinstance(hint, type):
        return lambda value: isinstance(value, hint)
    raise TypeError(f"no check for the annotation {hint!r}")


def _either(checks: list[Check]) -> Check:
    return lambda value: any(check(value) for check in checks)


def _fixed(checks: list[Check]) -> Check:
    return lambda value: (
        isinstance(value, tuple)
        and len(value) == len(checks)
        and all(check(item) for check, item in zip(checks, value, strict=True))
    )


def _sequence(kind: tuple[type[Sequence[object]], ...], check: Check) -> Check:
    return lambda value: isinstance(value, kind) and all(check(item) for item in value)


def _mapping(key: Check, item: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(key(k) and item(v) for k, v in value.items())
