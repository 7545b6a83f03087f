"""The weights in a model's folder: where each tensor lies and in which type. Reads only headers, so a model of any size takes no time.

A folder holds `model.safetensors`, or several shards named by `model.safetensors.index.json`. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corewarding.dataflow.errors import UserError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F32": 4, "BF16": 2, "F16": 2}
"""The types of weights that can be loaded, and bytes of one element."""
_LONGEST_HEADER = 100_000_000  # bytes, as in the safetensors format


class ModelFilesError(UserError):
    """The weights of a model folder are missing, damaged, or do not fit its config.json or tokenizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor of a model folder."""

    file: Path
    dtype: str  # as safetensors names it: one of FLOATS
    shape: tuple[int, ...]
    offset: int  # of its first byte in the file

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * FLOATS[self.dtype]


def stored_tensors(folder: str | Path) -> dict[str, StoredTensor]:
    """All tensors of a model folder by name.

    ModelFilesError, with the file and the remedy: no weights, an index that names a missing shard or tensor, a file that was cut or is
    no safetensors file, or weights of a type that cannot be trained.
    """
    folder = Path(folder)
    index = _index(folder)
    if index is None:
        return _tensors_of(folder, folder / SINGLE)
    missing = sorted({file for file in index.values() if not (folder / file).is_file()})
    if missing:
        raise ModelFilesError(
            f"model.path {folder}: {INDEX} names {len(missing)} of {len(set(index.values()))} files that are missing: "
            f"{_some(missing)}; download or copy them again"
        )
    found: dict[str, StoredTensor] = {}
    for file in sorted(set(index.values())):
        found |= _tensors_of(folder, folder / file)
    absent = sorted(index.keys() - found.keys())
    if absent:
        raise ModelFilesError(
            f"model.path {folder}: no file holds {_some(absent)}, which {INDEX} names; download the folder again"
        )
    return {name: found[name] for name in index}


def fingerprint(tensors: dict[str, StoredTensor]) -> str:
    """16 hex digits of names, types, shapes and places of all tensors. Equal folders have equal fingerprints."""
    rows = sorted((name, t.file.name, t.dtype, t.shape, t.offset) for name, t in tensors.items())
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


def _index(folder: Path) -> dict[str, str] | None:
    """File name by tensor name; None for a folder with one file."""
    if (folder / SINGLE).is_file():
        return None
    if not (folder / INDEX).is_file():
        others = sorted(
            p.name for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".pth", ".pt", ".gguf")
        )
        held = f"it holds {_some(others)}, which cannot be read" if others else "it holds no weights"
        raise ModelFilesError(
            f"model.path {folder} has neither {SINGLE} nor {INDEX}: {held}; save the model with `save_pretrained`, or download "
            "its safetensors files"
        )
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        assert isinstance(index, dict)
        assert all(isinstance(file, str) for file in index.values())
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ModelFilesError(
            f"model.path {folder}: {INDEX} is not an index of tensors (no `weight_map`); download it again"
        ) from error
    return index


def _tensors_of(folder: Path, path: Path) -> dict[str, StoredTensor]:
    """The tensors of one file."""
    header, begin = _header(folder, path)
    found, end = {}, begin
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (first, last) = str(entry["dtype"]), tuple(map(int, entry["shape"])), entry["data_offsets"]
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(folder, path, f"its header does not describe {name}") from error
        if dtype not in FLOATS:
            raise ModelFilesError(
                f"model.path {folder}: {name} in {path.name} has type {dtype}, and only {', '.join(FLOATS)} can be trained; take "
                "the checkpoint that is not quantized"
            )
        tensor = StoredTensor(file=path, dtype=dtype, shape=shape, offset=begin + first)
        if tensor.num_bytes != last - first:
            raise _damaged(folder, path, f"its header gives {name} {last - first} bytes for {list(shape)} {dtype}")
        found[name] = tensor
        end = max(end, begin + last)
    if (size := path.stat().st_size) < end:
        raise _damaged(folder, path, f"it has {size:,} bytes of {end:,}")
    return found


def _header(folder: Path, path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where the data begins: 8 bytes of length, the header as JSON, the data."""
    with path.open("rb") as file:
        first = file.read(8)
        if first == b"version ":
            raise ModelFilesError(
                f"model.path {folder}: {path.name} is a Git LFS pointer, not the weights; run `git lfs pull` in the folder"
            )
        length = int.from_bytes(first, "little")
        size = path.stat().st_size
        if len(first) < 8 or not 0 < length <= _LONGEST_HEADER:
            raise _damaged(folder, path, "it is no safetensors file")
        if 8 + length > size:
            raise _damaged(folder, path, f"it has {size:,} bytes, fewer than its header of {length:,}")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise _damaged(folder, path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _damaged(folder, path, "its header is not a table of tensors")
    return header, 8 + length


def _damaged(folder: Path, path: Path, what: str) -> ModelFilesError:
    return ModelFilesError(f"model.path {folder}: {path.name} was cut or damaged ({what}); download or copy it again")


def _some(names: list[str]) -> str:
    """Up to five names."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
