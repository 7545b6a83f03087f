"""The weights in a model's folder: where each tensor lies and in which type. Reads headers and hardly more, so a model of any size
takes no time.

A folder holds `model.safetensors`, or several shards named by `model.safetensors.index.json`. Imports no torch.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corewarding.dataflow.errors import UserError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F32": 4, "BF16": 2, "F16": 2}
"""The types of weights that can be loaded, and bytes of one element."""
PROBE = 64
"""Bytes of each tensor that a fingerprint sees."""
_SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """What a model folder holds, as far as a run is planned by it."""

    num_parameters: int  # tied ones once
    num_bytes: int  # of these parameters, in the types of the folder
    largest: int  # elements of the largest one
    fingerprint: str


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
        others = sorted({path.name for path in folder.glob("*.safetensors")} - set(index.values()))
        held = f"; it holds {_some(others)} instead, which may have the wrong name" if others else ""
        raise ModelFilesError(
            f"model.path {folder}: {INDEX} names {len(missing)} of {len(set(index.values()))} files that are missing: "
            f"{_some(missing)}{held}; download or copy them again"
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


def fingerprint(folder: str | Path) -> str:
    """16 hex digits of the folder's weights, config.json and tokenizer. Equal folders have equal fingerprints.

    Of each tensor it sees name, type, shape, place and the PROBE bytes in its middle, so it also tells fine-tuned weights from their
    base. ModelFilesError as in stored_tensors.
    """
    folder, digest = Path(folder), hashlib.sha256()
    for name in _SMALL_FILES:
        if (folder / name).is_file():
            digest.update(name.encode() + (folder / name).read_bytes())
    tensors = sorted(stored_tensors(folder).items(), key=lambda one: (one[1].file, one[1].offset))
    for path, several in itertools.groupby(tensors, key=lambda one: one[1].file):
        with path.open("rb", buffering=0) as file:
            for name, t in several:
                digest.update(repr((name, path.name, t.dtype, t.shape, t.offset)).encode())
                file.seek(t.offset + t.num_bytes // 2)
                digest.update(file.read(min(PROBE, t.num_bytes - t.num_bytes // 2)))
    return digest.hexdigest()[:16]


def shards_of(folder: str | Path) -> list[str]:
    """The names of the files that hold the folder's weights, whether or not they are there. ModelFilesError if neither of SINGLE and
    INDEX is there."""
    index = _index(Path(folder))
    return [SINGLE] if index is None else sorted(set(index.values()))


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
