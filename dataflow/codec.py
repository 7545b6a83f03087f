"""msgpack wire format of the types in dataflow (ids, carriers, weights, metrics).

A carrier is a msgpack extension holding its class name and its fields in declaration order; an array is an extension
holding dtype, shape and its raw bytes, so a group of completions crosses without a Python object per token. Anything
else that msgpack knows (lists, dicts, strings, numbers, None) passes through. Decoding checks the size, the class names
and the field counts, and runs every carrier's own checks: a message from a stranger cannot make a malformed carrier.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import msgpack
import numpy as np

from corewarding.dataflow import carriers, ids, metrics, weights

MAX_MESSAGE_BYTES = 1 << 30
MAX_DEPTH = 32  # extensions within extensions; each level costs C stack, which ends without an exception
_ARRAY, _CARRIER, _TUPLE, _PAIRS = 1, 2, 3, 4
_DTYPES = frozenset({"<i4", "<i8", "<f4", "<f8", "|b1", "|u1"})


def _carriers() -> dict[str, type]:
    classes = [c for module in (ids, carriers, weights, metrics) for c in vars(module).values() if isinstance(c, type)]
    return {c.__name__: c for c in classes if dataclasses.is_dataclass(c)}


_BY_NAME = _carriers()
_FIELD_NAMES = {name: tuple(field.name for field in dataclasses.fields(carrier)) for name, carrier in _BY_NAME.items()}


class CodecError(ValueError):
    """The bytes are not a message of ours, or are over the size cap."""


def encode(message: object) -> bytes:
    """`message` as bytes. CodecError over MAX_MESSAGE_BYTES, TypeError for a type that does not travel."""
    data: bytes = msgpack.packb(message, default=_pack, strict_types=True, use_bin_type=True)
    if len(data) > MAX_MESSAGE_BYTES:
        raise CodecError(f"message of {len(data)} bytes is over the cap of {MAX_MESSAGE_BYTES}")
    return data


def decode(data: bytes) -> Any:
    """The message `encode` was given. CodecError for anything else."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise CodecError(f"message of {len(data)} bytes is over the cap of {MAX_MESSAGE_BYTES}")
    try:
        return _decode(data, 0)
    except CodecError:
        raise
    except (msgpack.UnpackException, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise CodecError(f"not a message of ours: {error}") from error


def _pack(value: object) -> object:
    if isinstance(value, np.ndarray):
        little = value.astype(value.dtype.newbyteorder("<"), copy=False)
        if little.dtype.str not in _DTYPES:
            raise TypeError(f"arrays of dtype {value.dtype} do not travel")
        header = msgpack.packb((little.dtype.str, little.shape))
        return msgpack.ExtType(_ARRAY, header + np.ascontiguousarray(little).tobytes())
    if isinstance(value, tuple):
        return msgpack.ExtType(_TUPLE, encode(list(value)))
    if isinstance(value, dict):  # only reached for dicts msgpack refuses; see _fields
        raise TypeError("a dict with keys that are not strings travels as a carrier's field only")
    if isinstance(value, np.generic):
        return value.item()
    if type(value).__name__ in _BY_NAME and dataclasses.is_dataclass(value):
        fields = [_field(getattr(value, name)) for name in _FIELD_NAMES[type(value).__name__]]
        return msgpack.ExtType(_CARRIER, encode([type(value).__name__, *fields]))
    raise TypeError(f"{type(value).__name__} does not travel")


def _field(value: object) -> object:
    """Dicts keyed by carriers (QuestionRollouts.groups) travel as pairs."""
    if isinstance(value, dict) and any(not isinstance(key, str) for key in value):
        return msgpack.ExtType(_PAIRS, encode([[k, v] for k, v in value.items()]))
    return value


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
    if code == _PAIRS:
        return dict(_decode(data, depth))
    if code == _CARRIER:
        name, *fields = _decode(data, depth)
        cls = _BY_NAME.get(name)
        if cls is None:
            raise CodecError(f"unknown carrier {name!r}")
        declared = _FIELD_NAMES[name]
        if len(declared) != len(fields):
            raise CodecError(f"{name} has {len(declared)} fields, the message {len(fields)}")
        return cls(**dict(zip(declared, fields, strict=True)))
    raise CodecError(f"unknown extension {code}")
