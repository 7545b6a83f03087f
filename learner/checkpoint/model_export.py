"""Writes the policy or the teacher of a checkpoint as a Hugging Face folder: new weights, and all other files of the base model.

The weights come from the learner's state on disk, tensor by tensor: no rank is asked, and no model is held.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer

from corewarding.dataflow.ids import Channel
from corewarding.learner.checkpoint.learner_state import open_state
from corewarding.learner.checkpoint.manifest import CheckpointError
from corewarding.learner.checkpoint.tensor_files import Entry, write_tensors
from corewarding.weights.model_config import model_config
from corewarding.weights.model_files import INDEX, SINGLE
from corewarding.weights.names import Part

MAX_SHARD_BYTES = 5 * 10**9
"""Size of one file of weights; a larger tensor has a file of its own."""
_COPIED = ("generation_config.json", "chat_template.jinja")


def write_weights(
    learner: Path,
    channel: Channel,
    out: Path,
    *,
    parts: Mapping[str, tuple[Part, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes the weights of `channel` into `out` from the learner's state in the folder `learner`.

    parts, shapes: by parameter, its tensors under the names of the base model, and its shape. CheckpointError if there are none.
    """
    index, files = open_state(learner)
    if channel not in index.sets:
        raise CheckpointError(f"{learner} holds no {channel} weights")

    def read(name: str, part: Part) -> Tensor:
        whole = torch.empty(part.size, dtype=torch.float32)
        files.read(f"{channel}/{name}", shapes[name], part.start, whole)
        return whole

    write_parts(out, parts, read, dtype=dtype, max_shard_bytes=max_shard_bytes)


def write_parts(
    out: Path,
    parts: Mapping[str, tuple[Part, ...]],
    read: Callable[[str, Part], Tensor],
    *,
    dtype: torch.dtype,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes the weights of a Hugging Face folder. read: a tensor, flat, of the parameter of that name; asked for when it is due."""
    out.mkdir(parents=True, exist_ok=True)
    cuts = _cut([(name, part) for name, some in parts.items() for part in some], dtype.itemsize, max_shard_bytes)
    weight_map: dict[str, str] = {}
    total = 0
    for number, some in enumerate(cuts, start=1):
        file = SINGLE if len(cuts) == 1 else f"model-{number:05d}-of-{len(cuts):05d}.safetensors"
        entries = [Entry(name=part.name, dtype=dtype, shape=part.shape) for _, part in some]
        write_tensors(out / file, entries, (read(*one).to(dtype) for one in some), {"format": "pt"})
        weight_map |= {entry.name: file for entry in entries}
        total += sum(entry.num_bytes for entry in entries)
    if len(cuts) > 1:
        content = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (out / INDEX).write_text(json.dumps(content, indent=1))


def write_rest(out: Path, base: str | Path, dtype: torch.dtype) -> None:
    """Writes config, tokenizer and generation config of the folder `base` beside weights of type `dtype`."""
    config = model_config(base)
    config.dtype = dtype
    config.save_pretrained(out)
    AutoTokenizer.from_pretrained(base, trust_remote_code=False).save_pretrained(out)
    copy_templates(base, out)


def copy_templates(base: str | Path, out: Path) -> None:
    """Copies generation config and chat template, where there are any."""
    for name in _COPIED:
        if (source := Path(base) / name).is_file():
            shutil.copyfile(source, out / name)


def _cut(parts: list[tuple[str, Part]], itemsize: int, max_bytes: int) -> list[list[tuple[str, Part]]]:
    """The tensors of each file, in order."""
    cuts: list[list[tuple[str, Part]]] = [[]]
    size = 0
    for name, part in parts:
        num_bytes = part.size * itemsize
        if cuts[-1] and size + num_bytes > max_bytes:
            cuts.append([])
            size = 0
        cuts[-1].append((name, part))
        size += num_bytes
    return cuts
