"""msgpack wire format of the types in dataflow (ids, carriers, weights, metrics, spans).

A carrier is a msgpack extension that holds its class name and its fields in declaration order. An array is an extension that
holds dtype, shape and raw bytes, so a group of completions crosses without a Python object per token. Everything else that
msgpack knows (lists, dicts, strings, numbers, None) passes through. Decoding checks the size, the class names and the field
counts, and runs each carrier's own checks, so a hostile message cannot make a malformed carrier.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import msgpack
import numpy as np

from corewarding.dataflow import carriers, ids, metrics, spans, votes, weights

MAX_MESSAGE_BYTES = 1 << 30
MAX_DEPTH = 32  # extensions within extensions; each level costs C stack, and overflowing it raises no exception
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
        return _decode(data, 0)
    except CodecError:
        raise
    except (msgpack.UnpackException, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
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


def _decode(data: bytes, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise CodecError(f"message is nested more than {MAX_DEPTH} deep")
    return msgpack.unpackb(
        data, ext_hook=lambda code, inner: _unpack(code, inner, depth + 1), raw=False, strict_map_key=False
    )


def _unpack(code: int, data: bytes, depth: int) -> object:
    if code == _ARRAY:
        unpacker = msgpack.Unpacker(use_list=False)
        unpacker.feed(data[:256])
        dtype, shape = unpacker.unpack()
        if dtype not in _DTYPES:
            raise CodecError(f"array of dtype {dtype!r}")
        return np.frombuffer(data, dtype=dtype, offset=unpacker.tell()).reshape(shape)
    if code == _TUPLE:
        return tuple(_decode(data, depth))
    if code == _CARRIER:
        name, *fields = _decode(data, depth)
        cls = CARRIERS.get(name)
        if cls is None:
            raise CodecError(f"unknown carrier {name!r}")
        declared = _FIELD_NAMES[name]
        if len(declared) != len(fields):
            raise CodecError(f"{name} has {len(declared)} fields, the message {len(fields)}")
        return cls(**dict(zip(declared, fields, strict=True)))
    raise CodecError(f"unknown extension {code}")
