"""msgpack wire format of the types in dataflow (ids, carriers, weights, metrics, spans).

A carrier is a msgpack extension that holds its class name and its fields in declaration order. An array is an extension that
holds dtype, shape and raw bytes, so a group of completions crosses without a Python object per token. Everything else that
msgpack knows (lists, dicts, strings, numbers, None) passes through. Decoding checks the size, the number of containers, class names,
field counts and field types, and runs each carrier's own checks, so a hostile message can neither make a malformed carrier nor take
much more memory than its own size.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import msgpack
import numpy as np

from corewarding.dataflow import carriers, ids, metrics, spans, votes, weights
from corewarding.dataflow.field_types import checks_of, refuse_other_types

MAX_MESSAGE_BYTES = 1 << 30
MAX_DEPTH = 32  # extensions within extensions; each level costs C stack, and overflowing it raises no exception
BYTES_PER_CONTAINER, FREE_CONTAINERS = 8, 1024
"""A message may hold 1024 lists, dicts, arrays and carriers, and one more for every 8 of its bytes. An empty list is one byte on the
wire and 64 in memory."""
_ARRAY, _CARRIER, _TUPLE = 1, 2, 3
_DTYPES = frozenset({"<i4", "<i8", "<f4", "<f8", "|b1", "|u1"})
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


def encode(message: object) -> bytes:
    """`message` as bytes. CodecError over MAX_MESSAGE_BYTES, TypeError for a type that does not travel."""
    data: bytes = msgpack.packb(message, default=_pack, strict_types=True, use_bin_type=True)
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


def _pack(value: object) -> object:
    if isinstance(value, np.ndarray):
        little = value.astype(value.dtype.newbyteorder("<"), copy=False)
        if little.dtype.str not in _DTYPES:
            raise TypeError(f"arrays of dtype {value.dtype} do not travel")
        header = msgpack.packb((little.dtype.str, little.shape))
        return msgpack.ExtType(_ARRAY, header + np.ascontiguousarray(little).tobytes())
    if isinstance(value, tuple):
        return msgpack.ExtType(_TUPLE, encode(list(value)))
    if isinstance(value, np.generic):
        return value.item()
    name = type(value).__name__
    if CARRIERS.get(name) is type(value):
        fields = [getattr(value, field) for field in _FIELD_NAMES[name]]
        return msgpack.ExtType(_CARRIER, encode([name, *fields]))
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

    def _count(self, container: T) -> T:
        self._left -= 1
        if self._left < 0:
            raise CodecError("message holds too many lists, dicts, arrays or carriers for its size")
        return container

    def _unpack(self, code: int, data: bytes, depth: int) -> object:
        self._count(code)
        if code == _ARRAY:
            unpacker = msgpack.Unpacker(use_list=False)
            unpacker.feed(data[:256])
            dtype, shape = unpacker.unpack()
            if dtype not in _DTYPES:
                raise CodecError(f"array of dtype {dtype!r}")
            return np.frombuffer(data, dtype=dtype, offset=unpacker.tell()).reshape(shape)
        if code == _TUPLE:
            return tuple(self.decode(data, depth))
        if code == _CARRIER:
            name, *fields = self.decode(data, depth)
            return _carrier(name, fields)
        raise CodecError(f"unknown extension {code}")


def _carrier(name: str, fields: list[object]) -> object:
    cls = CARRIERS.get(name)
    if cls is None:
        raise CodecError(f"unknown carrier {name!r}")
    declared = _FIELD_NAMES[name]
    if len(declared) != len(fields):
        raise CodecError(f"{name} has {len(declared)} fields, the message {len(fields)}")
    values = dict(zip(declared, fields, strict=True))
    refuse_other_types(cls, _FIELD_TYPES[name], values)
    return cls(**values)
