"""An adapter as a folder that peft loads, and base model and adapter as one Hugging Face folder, from a learner's state on disk.

    adapter_config.json, adapter_model.safetensors (float32), base.json, tokenizer

base.json is the reference to the base model: a checkpoint with adapters holds no other weights. Merged weights are made tensor by
tensor, by the code that makes them for the engines.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoTokenizer

from corewarding.dataflow.errors import UserError
from corewarding.dataflow.ids import Channel
from corewarding.learner.checkpoint.learner_state import open_state
from corewarding.learner.checkpoint.manifest import CheckpointError, read_object
from corewarding.learner.checkpoint.model_export import copy_templates, write_parts, write_rest
from corewarding.learner.checkpoint.tensor_files import Entry, ShardFiles, write_tensors
from corewarding.learner.lora.adapter import peft_config
from corewarding.learner.lora.merging import LowRank
from corewarding.learner.lora.settings import LoraSettings
from corewarding.weights.model_files import ModelFilesError, fingerprint
from corewarding.weights.model_loading import BaseWeights, empty_model
from corewarding.weights.names import Part, parts_of

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
_IN_PEFT = "base_model.model."
"""What peft puts in front of a module's name in a transformers model."""


class BaseModelError(UserError):
    """The base model of an adapter is not where it is looked for, or is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """The content of base.json."""

    path: str
    fingerprint: str
    dtype: str  # of weights that are written with the adapter merged in

    @classmethod
    def of(cls, folder: str, dtype: str) -> BaseModel:
        return cls(path=str(Path(folder).resolve()), fingerprint=fingerprint(folder), dtype=dtype)


def is_adapter(folder: Path) -> bool:
    """Whether a checkpoint's `model/` holds an adapter instead of a whole model."""
    return (folder / BASE).is_file()


def write_adapter(
    learner: Path,
    channel: Channel,
    out: Path,
    *,
    shapes: Mapping[str, tuple[int, ...]],
    settings: LoraSettings,
    base: BaseModel,
) -> None:
    """Writes the adapter of `channel` from the learner's state in the folder `learner`. shapes: by their names in that state."""
    write_adapter_weights(learner, channel, out, shapes)
    targets = sorted({name.rpartition(".lora_")[0] for name in shapes})
    config = peft_config(settings, targets)
    config.base_model_name_or_path, config.inference_mode = base.path, True
    config.save_pretrained(out)
    (out / BASE).write_text(json.dumps(dataclasses.asdict(base), indent=1) + "\n")
    AutoTokenizer.from_pretrained(base.path, trust_remote_code=False).save_pretrained(out)
    copy_templates(base.path, out)


def write_adapter_weights(learner: Path, channel: Channel, out: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Only the tensors of an adapter, as in write_adapter. CheckpointError if the state holds none of this channel."""
    files = _files_of(learner, channel)

    def read(name: str) -> Tensor:
        return _whole(files, f"{channel}/{name}", shapes[name])

    out.mkdir(parents=True, exist_ok=True)
    entries = [Entry(name=_IN_PEFT + name, dtype=torch.float32, shape=shape) for name, shape in shapes.items()]
    write_tensors(out / WEIGHTS, entries, map(read, shapes), {"format": "pt"})


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the adapter in a folder, by their names in a learner's state."""
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        names = list(file.keys())
        return {name.removeprefix(_IN_PEFT): tuple(file.get_slice(name).get_shape()) for name in names}


def write_merged(learner: Path, channel: Channel, adapter: Path, out: Path, *, base: Path | None = None) -> None:
    """Writes base model and adapter of `channel` as one Hugging Face folder.

    learner: the learner's state. adapter: the folder that write_adapter wrote with it. base: where the base model is, if it has moved.
    BaseModelError if it is not there.
    """
    folder, dtype = base_model(adapter, base)
    rank, scale = _rank_and_scale(adapter)
    files = _files_of(learner, channel)
    model = empty_model(folder, dtype=torch.float32, attention="sdpa", device=torch.device("cpu"))
    weights, parts = BaseWeights(folder, model), parts_of(model)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}

    def read(name: str, part: Part) -> Tensor:
        whole = torch.empty(part.size, dtype=torch.float32)
        for _ in weights.read(name, whole, part.start):
            pass
        inside = f"{channel}/{name.removesuffix('.weight')}"
        if f"{inside}.lora_A.weight" not in files:
            return whole
        rows, columns = shapes[name]
        a = _whole(files, f"{inside}.lora_A.weight", (rank, columns))
        b = _whole(files, f"{inside}.lora_B.weight", (rows, rank))
        return LowRank(a=a, b=b, scale=scale).added_to(whole, part.start)

    write_parts(out, parts, read, dtype=dtype)
    write_rest(out, folder, dtype)


def base_model(adapter: Path, moved: Path | None) -> tuple[Path, torch.dtype]:
    """The folder of an adapter's base model, and the type in which merged weights are written. BaseModelError if another model or none
    is there. moved: where it is now; None: where it was."""
    content = read_object(adapter / BASE)
    try:
        base = BaseModel(**content)
        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[base.dtype]
    except (TypeError, KeyError):
        raise CheckpointError(f"{adapter / BASE} is garbled") from None
    folder = moved or Path(base.path)
    remedy = "give the folder of the model that the run was started from as --base"
    if not folder.is_dir():
        raise BaseModelError(f"the base model of {adapter} is not in {folder}: there is no such folder; {remedy}")
    try:
        here = fingerprint(folder)
    except ModelFilesError as error:
        raise BaseModelError(f"{folder}, the base model of {adapter}, cannot be read: {error}; {remedy}") from None
    if here != base.fingerprint:
        raise BaseModelError(
            f"{folder} is not the base model of {adapter}: its fingerprint is {here}, expected {base.fingerprint}; {remedy}"
        )
    return folder, dtype


def _rank_and_scale(adapter: Path) -> tuple[int, float]:
    config = read_object(adapter / CONFIG)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not (type(rank) is int and type(alpha) is int and rank > 0):
        raise CheckpointError(f"{adapter / CONFIG} is garbled")
    return rank, alpha / rank


def _files_of(learner: Path, channel: Channel) -> ShardFiles:
    index, files = open_state(learner)
    if channel not in index.sets:
        raise CheckpointError(f"{learner} holds no {channel} weights")
    return files


def _whole(files: ShardFiles, name: str, shape: tuple[int, ...]) -> Tensor:
    """A whole tensor of a learner's state."""
    flat = torch.empty(shape, dtype=torch.float32).view(-1)
    files.read(name, shape, 0, flat)
    return flat.view(shape)
