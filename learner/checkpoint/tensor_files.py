"""Tensors in safetensors files, written and read by parts: a header in JSON, then bytes. Nothing that is read can run code.

A shard file holds flat parts of tensors, and in its header where each part begins in its whole tensor. So any number of ranks reads
what another number wrote, each only its own elements.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corewarding.learner.checkpoint.manifest import CheckpointError
from corewarding.weights.stream import Shard

NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_DTYPES = {name: dtype for dtype, name in NAMES.items()}
_CHUNK = 16 * 2**20  # bytes read at one time
_LONGEST_HEADER = 100_000_000  # bytes, as in the safetensors format
_SHARDS = "shards"  # key of the header's metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One tensor of a file that is to be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(path: Path, entries: Sequence[Entry], tensors: Iterable[Tensor], metadata: dict[str, str]) -> None:
    """Writes a safetensors file. tensors: of `entries`, in their order, contiguous and on the CPU; each is asked for when due."""
    header: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for entry in entries:
        end = offset + entry.num_bytes
        header[entry.name] = {
            "dtype": NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry, tensor in zip(entries, tensors, strict=True):
            assert (tensor.dtype, tensor.numel()) == (entry.dtype, math.prod(entry.shape)), entry
            file.write(_bytes(tensor))


def write_shards(path: Path, shards: Sequence[Shard]) -> None:
    """Writes the shards of one rank; empty ones are left out."""
    held = [shard for shard in shards if shard.local.numel()]
    places = {shard.name: {"shape": list(shard.shape), "start": shard.start} for shard in held}
    entries = [Entry(name=one.name, dtype=one.local.dtype, shape=(one.local.numel(),)) for one in held]
    write_tensors(path, entries, (one.local for one in held), {_SHARDS: json.dumps(places)})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Some elements of a whole tensor, in one file."""

    file: Path
    offset: int  # of the first byte in the file
    dtype: torch.dtype
    shape: tuple[int, ...]  # of the whole
    start: int  # of the first element in the flattened whole
    num: int


class ShardFiles:
    """The whole tensors of several shard files. Only headers are read before a tensor is asked for."""

    def __init__(self, files: Iterable[Path]) -> None:
        """CheckpointError if a file is no shard file, or if the parts of a tensor do not make it whole."""
        parts: dict[str, list[_Part]] = {}
        for file in files:
            for name, part in _parts_of(file):
                parts.setdefault(name, []).append(part)
        self._parts = {name: sorted(some, key=lambda one: one.start) for name, some in parts.items()}
        for name, some in self._parts.items():
            first, expected = some[0], 0
            for part in some:
                if part.start != expected or (part.shape, part.dtype) != (first.shape, first.dtype):
                    raise CheckpointError(f"{part.file}: the parts of {name} do not fit together")
                expected += part.num
            if expected != math.prod(first.shape):
                raise CheckpointError(f"{first.file.parent}: a part of {name} is missing")

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    @torch.no_grad()
    def read(self, name: str, shape: tuple[int, ...], start: int, into: Tensor) -> None:
        """Fills the flat, contiguous `into`, on any device, with elements start, start + 1, ... of the tensor.

        CheckpointError if there is no such tensor, or one of another shape or type.
        """
        if name not in self._parts:
            raise CheckpointError(f"the checkpoint holds no {name}")
        found = self._parts[name][0]
        if (found.shape, found.dtype) != (tuple(shape), into.dtype):
            raise CheckpointError(
                f"{found.file.parent}: {name} is {list(found.shape)} {found.dtype}, expected {list(shape)} {into.dtype}; it is of "
                "another model or configuration"
            )
        for part in self._parts[name]:
            first, end = max(start, part.start), min(start + into.numel(), part.start + part.num)
            if first < end:
                _fill(part, first - part.start, into[first - start : end - start])


def _fill(part: _Part, first: int, into: Tensor) -> None:
    """Fills `into` with elements of a part, from its element `first` on."""
    size = part.dtype.itemsize
    with part.file.open("rb", buffering=0) as file:
        file.seek(part.offset + first * size)
        for target in into.split(_CHUNK // size):
            place = target if target.device.type == "cpu" else torch.empty_like(target, device="cpu")
            _read_exactly(file, _bytes(place), part.file)
            if place is not target:
                target.copy_(place)


def _read_exactly(file: io.FileIO, view: memoryview, path: Path) -> None:
    while view:
        count = file.readinto(view)
        if not count:
            raise CheckpointError(f"{path} became shorter while it was read")
        view = view[count:]


def _bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data


def _parts_of(path: Path) -> list[tuple[str, _Part]]:
    """What a shard file says it holds, compared with its size."""
    header, begin, size = _header(path)
    try:
        places = json.loads(header.pop("__metadata__")[_SHARDS])
        found = []
        for name, entry in header.items():
            dtype, (num,) = _DTYPES[entry["dtype"]], entry["shape"]
            first, end = entry["data_offsets"]
            shape, start = tuple(places[name]["shape"]), places[name]["start"]
            if not all(type(value) is int and value >= 0 for value in (num, first, end, start, *shape)):
                raise ValueError(name)
            if end - first != num * dtype.itemsize or begin + end > size:
                raise ValueError(name)
            part = _Part(file=path, offset=begin + first, dtype=dtype, shape=shape, start=start, num=num)
            found.append((name, part))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise CheckpointError(f"{path} is cut, or no file of learner state") from None
    return found


def _header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header of a safetensors file, where its data begins, and the size of the file."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(size - 8, _LONGEST_HEADER):
                raise CheckpointError(f"{path} is cut, or no file of learner state")
            header = json.loads(file.read(length))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path} is cut, or no file of learner state") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} is cut, or no file of learner state")
    return header, 8 + length, size
