"""msgpack wire format of the types in dataflow (ids, carriers, weights, metrics, spans).

A carrier is a msgpack extension that holds its class name and its fields in declaration order; several of one class in a list or
tuple are one extension that holds their fields as columns (wire/columns.py). An array is an extension that holds dtype, shape and raw
bytes, so a group of completions crosses without a Python object per token. Everything else that msgpack knows (lists, dicts, strings,
numbers, None) passes through. Equal messages have equal bytes. Decoding checks the size, the number of containers, class names, field
counts and field types, and runs each carrier's own checks, so a hostile message can neither make a malformed carrier nor take much
more memory than its own size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import msgpack
import numpy as np

from corewarding.dataflow import carriers, ids, metrics, spans, votes, weights
from corewarding.dataflow.wire.columns import ARRAYS, DTYPES, columns_of, little, values_of
from corewarding.dataflow.wire.field_types import FieldTypeError, checks_of, refuse_other_types

MAX_MESSAGE_BYTES = 1 << 30
MAX_DEPTH = 32  # extensions within extensions; each level costs C stack, and overflowing it raises no exception
BYTES_PER_CONTAINER, FREE_CONTAINERS = 4, 1024
"""A message may hold 1024 lists, dicts, arrays and carriers, and one more for every 4 of its bytes. An empty list is one byte on the
wire and 64 in memory; a completion of one token is about 40 on the wire, and 6 of these."""
_ARRAY, _CARRIER, _TUPLE, _COLUMNS = 1, 2, 3, 4
T = TypeVar("T")


def _carriers() -> dict[str, type]:
    modules = (ids, carriers, votes, weights, metrics, spans)
    classes = [c for module in modules for c in vars(module).values() if isinstance(c, type)]
    return {c.__name__: c for c in classes if dataclasses.is_dataclass(c)}


CARRIERS = _carriers()
"""The types that travel, by the name they have on the wire."""

_FIELD_NAMES = {name: tuple(field.name for field in dataclasses.fields(carrier)) for name, carrier in CARRIERS.items()}
_FIELD_TYPES = {name: checks_of(carrier) for name, carrier in CARRIERS.items()}


class CodecError(ValueError):
    """The bytes are not a message of ours, or are over the size cap."""


def encode(message: object, *, columns: bool = True) -> bytes:
    """`message` as bytes. CodecError over MAX_MESSAGE_BYTES, TypeError for a type that does not travel.

    columns: False sends every carrier by itself, as the first version of this format did.
    """
    data = _packed(message, columns)
    if len(data) > MAX_MESSAGE_BYTES:
        raise CodecError(f"message of {len(data)} bytes is over the cap of {MAX_MESSAGE_BYTES}")
    return data


def decode(data: bytes) -> Any:
    """The message that `encode` was given. CodecError for any other bytes."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise CodecError(f"message of {len(data)} bytes is over the cap of {MAX_MESSAGE_BYTES}")
    try:
        return _Decoder(len(data)).decode(data, 0)
    except CodecError:
        raise
    except (
        msgpack.UnpackException,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise CodecError(f"not a message of ours: {error}") from error


def decode_as(data: bytes, carrier: type[T]) -> T:
    """The message, which must be a `carrier`. CodecError otherwise."""
    message = decode(data)
    if not isinstance(message, carrier):
        raise CodecError(f"expected {carrier.__name__}, got {type(message).__name__}")
    return message


def decode_list(data: bytes, carrier: type[T]) -> list[T]:
    """The message, which must be a list of `carrier` only. CodecError otherwise."""
    message = decode_as(data, list)
    for item in message:
        if not isinstance(item, carrier):
            raise CodecError(f"expected a list of {carrier.__name__}, got one of {type(item).__name__}")
    return message


def _packed(message: object, columns: bool) -> bytes:
    found = _in_columns(message) if columns else message
    data: bytes = msgpack.packb(found, default=partial(_pack, columns), strict_types=True, use_bin_type=True)
    return data


def _in_columns(message: object) -> object:
    """A list of several carriers of one class as their columns; anything else as it is."""
    if type(message) is not list or len(message) < 2:
        return message
    cls = type(message[0])
    if CARRIERS.get(cls.__name__) is not cls or any(type(one) is not cls for one in message):
        return message
    columns = columns_of(message, _FIELD_NAMES[cls.__name__])
    for column in columns:  # of carriers within carriers
        column[1] = _in_columns(column[1])
    return msgpack.ExtType(_COLUMNS, _packed([cls.__name__, len(message), columns], True))


def _pack(columns: bool, value: object) -> object:
    if isinstance(value, np.ndarray):
        array = little(value)
        header = msgpack.packb((array.dtype.str, array.shape))
        return msgpack.ExtType(_ARRAY, header + array.tobytes())
    if isinstance(value, tuple):
        return msgpack.ExtType(_TUPLE, _packed(list(value), columns))
    if isinstance(value, np.generic):
        return value.item()
    name = type(value).__name__
    if CARRIERS.get(name) is type(value):
        fields = [getattr(value, field) for field in _FIELD_NAMES[name]]
        if columns:
            fields = [_in_columns(field) for field in fields]
        return msgpack.ExtType(_CARRIER, _packed([name, *fields], columns))
    raise TypeError(f"{name} does not travel")


class _Decoder:
    """Decodes one message, with one count of containers over all its levels."""

    def __init__(self, num_bytes: int) -> None:
        self._left = FREE_CONTAINERS + num_bytes // BYTES_PER_CONTAINER

    def decode(self, data: bytes, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise CodecError(f"message is nested more than {MAX_DEPTH} deep")
        return msgpack.unpackb(
            data,
            ext_hook=lambda code, inner: self._unpack(code, inner, depth + 1),
            list_hook=self._count,
            object_hook=self._count,
            raw=False,
            strict_map_key=False,
        )

    def _count(self, container: T, num: int = 1) -> T:
        self._left -= num
        if self._left < 0:
            raise CodecError("message holds too many lists, dicts, arrays or carriers for its size")
        return container

    def _unpack(self, code: int, data: bytes, depth: int) -> object:
        self._count(code)
        if code == _ARRAY:
            unpacker = msgpack.Unpacker(use_list=False)
            unpacker.feed(data[:256])
            dtype, shape = unpacker.unpack()
            if dtype not in DTYPES:
                raise CodecError(f"array of dtype {dtype!r}")
            return np.frombuffer(data, dtype=dtype, offset=unpacker.tell()).reshape(shape)
        if code == _TUPLE:
            return tuple(self.decode(data, depth))
        if code == _CARRIER:
            name, *fields = self.decode(data, depth)
            return _carrier(name, fields)
        if code == _COLUMNS:
            return self._carriers(*self.decode(data, depth))
        raise CodecError(f"unknown extension {code}")

    def _carriers(self, name: str, num: int, columns: Sequence[object]) -> list[object]:
        """The carriers that these columns hold."""
        if type(num) is not int or num < 0 or not isinstance(columns, list):
            raise CodecError(f"no columns of {name!r}")
        cls, names, checks = _declared(name, len(columns)), _FIELD_NAMES[name], _FIELD_TYPES[name]
        self._count(cls, num)
        rows = []
        for field, column in zip(names, columns, strict=True):
            if isinstance(column, list) and column[:1] == [ARRAYS]:
                self._count(column, num)
            different, values = values_of(column, num)
            check = checks[field]
            for value in different:
                if not check(value):
                    raise FieldTypeError(cls, field, value)
            rows.append(values)
        return [cls(**dict(zip(names, values, strict=True))) for values in zip(*rows, strict=True)]


def _declared(name: str, num_fields: int) -> type[Any]:
    """The class of this name, which has so many fields."""
    cls = CARRIERS.get(name)
    if cls is None:
        raise CodecError(f"unknown carrier {name!r}")
    if len(_FIELD_NAMES[name]) != num_fields:
        raise CodecError(f"{name} has {len(_FIELD_NAMES[name])} fields, the message {num_fields}")
    return cls


def _carrier(name: str, fields: list[object]) -> object:
    cls = _declared(name, len(fields))
    values = dict(zip(_FIELD_NAMES[name], fields, strict=True))
    refuse_other_types(cls, _FIELD_TYPES[name], values)
    return cls(**values)
