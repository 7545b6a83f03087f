"""Makes a model from its folder without ever holding it whole: the module on the meta device, then each tensor read into its place.

A rank reads only its own elements of a tensor, and at most CHUNK bytes of them at a time beside the memory that it reads into.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from corewarding.weights.model_config import model_config, without_dropout
from corewarding.weights.model_files import ModelFilesError, StoredTensor, stored_tensors
from corewarding.weights.names import Part, parts_of

CHUNK = 16 * 2**20
"""Bytes that are read at one time (16 MiB)."""
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_COMPUTED = r"rotary_emb\.inv_freq$"  # older checkpoints hold it, and it follows from config.json


def empty_model(folder: str | Path, *, dtype: torch.dtype, attention: str, device: torch.device) -> Any:
    """The causal language model of `folder` with parameters on the meta device and buffers, computed, on `device`.

    Buffers that no checkpoint holds, such as rotary frequencies, come from transformers' own initialization. ModelFilesError if
    it leaves one out.
    """
    config = without_dropout(model_config(folder))
    try:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(
                config, dtype=dtype, attn_implementation=attention, trust_remote_code=False
            )
    except ValueError as error:
        raise ModelFilesError(f"model.path {folder}: transformers refuses this model here: {error}") from error
    for where, module in model.named_modules():
        computed = module._non_persistent_buffers_set & module._buffers.keys()
        for name in computed:
            module._buffers[name] = _unset(module._buffers[name], device)
        if computed:
            with torch.no_grad():
                model._init_weights(module)
        for name in computed:
            if _is_unset(module._buffers[name]):
                raise ModelFilesError(
                    f"model.path {folder}: transformers does not say how to compute the buffer {where}.{name} of "
                    f"{type(model).__name__}, and no checkpoint holds it; this architecture cannot be loaded"
                )
    return model


def allocate(module: nn.Module, device: torch.device) -> None:
    """Gives every parameter memory on `device`, with undefined values. Computed buffers keep theirs; tied parameters stay tied."""
    owners = [(owner, name, b) for owner in module.modules() for name, b in owner._buffers.items() if b is not None]
    tied: dict[Tensor, list[tuple[nn.Module, str]]] = {}
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                tied.setdefault(parameter, []).append((owner, name))
    module.to_empty(device=device)
    for places in tied.values():
        first, name = places[0]
        for owner, other in places[1:]:
            owner._parameters[other] = first._parameters[name]
    for owner, name, buffer in owners:
        if not buffer.is_meta:
            owner._buffers[name] = buffer.to(device)


class BaseWeights:
    """The weights in a model folder, by the names that they have in memory."""

    def __init__(self, folder: str | Path, model: Any) -> None:
        """model: of `folder`, on any device. ModelFilesError unless the folder holds exactly its tensors; only headers are read."""
        self._folder, self._stored, self._parts = folder, stored_tensors(folder), parts_of(model)
        self._copies = {one: name for one, name in _tied(model).items() if one in self._stored}
        _check_fit(folder, model, self._parts, self._stored)

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def num_bytes(self, name: str) -> int:
        """Bytes of parameter `name` in the folder."""
        return sum(self._stored[part.name].num_bytes for part in self._parts[name])

    def dtype(self, name: str) -> torch.dtype:
        """The type that keeps parameter `name` exactly: that of the folder."""
        kinds = {DTYPES[self._stored[part.name].dtype] for part in self._parts[name]}
        return kinds.pop() if len(kinds) == 1 else torch.float32

    @torch.no_grad()
    def read(self, name: str, into: Tensor, start: int = 0) -> Iterator[int]:
        """Fills the flat, contiguous tensor `into` with elements start, start + 1, ... of the flattened parameter `name`.

        Casts to the type of `into` a chunk at a time. Yields the bytes read by each step; nothing is read before it is asked for.
        ModelFilesError if the file ends early, or holds a tied parameter twice with different values.
        """
        for part in self._parts[name]:
            first, end = max(start, part.start), min(start + into.numel(), part.start + part.size)
            if first < end:
                yield from _read(self._stored[part.name], first - part.start, into[first - start : end - start])
        for copy, tied in self._copies.items():
            if tied == name:
                self._compare(copy, into, start, name)

    def _compare(self, copy: str, read: Tensor, start: int, name: str) -> None:
        """ModelFilesError unless the stored tensor `copy` has the values that were read for parameter `name`, to which it is tied."""
        for first in range(0, read.numel(), CHUNK // 4):
            own = read[first : first + CHUNK // 4]
            other = torch.empty_like(own)
            for _ in _read(self._stored[copy], start + first, other):
                pass
            if not torch.equal(own, other):
                raise ModelFilesError(
                    f"model.path {self._folder}: config.json ties {copy} to {name}, but the weights of both differ; set "
                    "tie_word_embeddings to false in config.json"
                )


def _read(tensor: StoredTensor, first: int, into: Tensor) -> Iterator[int]:
    """Fills `into` with elements of one stored tensor, from its element `first` on."""
    dtype = DTYPES[tensor.dtype]
    size = dtype.itemsize
    direct = into.device.type == "cpu" and into.dtype == dtype
    chunk = CHUNK // size
    staging = torch.empty(0 if direct else min(chunk, into.numel()), dtype=dtype, pin_memory=into.is_cuda)
    with tensor.file.open("rb", buffering=0) as file:
        file.seek(tensor.offset + first * size)
        for target in into.split(chunk):
            place = target if direct else staging[: target.numel()]
            _fill(file, place, tensor)
            if not direct:
                target.copy_(place.to(into.device))
            yield target.numel() * size


def _fill(file: io.FileIO, place: Tensor, tensor: StoredTensor) -> None:
    """Reads exactly as many bytes as `place` has."""
    view = place.view(torch.uint8).numpy().data
    while view:
        count = file.readinto(view)
        if not count:
            raise ModelFilesError(f"model.path: {tensor.file} became shorter while it was read; copy it again")
        view = view[count:]


def _check_fit(
    folder: str | Path, model: Any, parts: Mapping[str, tuple[Part, ...]], stored: Mapping[str, StoredTensor]
) -> None:
    """ModelFilesError unless the folder holds the tensors of `model` in their shapes, and no others."""
    expected = {part.name: part.shape for several in parts.values() for part in several}
    where = f"model.path {folder}: the weights do not fit config.json"
    missing = sorted(expected.keys() - stored.keys())
    if missing:
        raise ModelFilesError(
            f"{where}: {len(missing)} of {len(expected)} tensors are missing, the first is {missing[0]}; take both from the same model"
        )
    for name, shape in expected.items():
        if stored[name].shape != shape:
            raise ModelFilesError(
                f"{where}: {name} has shape {list(stored[name].shape)}, expected {list(shape)}; take both from the same model"
            )
    known = [_COMPUTED, *(model._keys_to_ignore_on_load_unexpected or ())]
    others = stored.keys() - expected.keys() - _tied(model).keys()
    extra = sorted(name for name in others if not any(re.search(one, name) for one in known))
    if extra:
        raise ModelFilesError(
            f"{where}: it has no place for {len(extra)} tensors, the first is {extra[0]}; take both from the same model"
        )


def _tied(model: Any) -> dict[str, str]:
    """Other names of tied parameters, with the name under which each is counted."""
    counted = {id(parameter): name for name, parameter in model.named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    return {name: counted[id(parameter)] for name, parameter in every if counted[id(parameter)] != name}


def _unset(buffer: Tensor | None, device: torch.device) -> Tensor | None:
    """A buffer on `device` that is filled with a mark."""
    return None if buffer is None else torch.full_like(buffer, _mark(buffer.dtype), device=device)


def _is_unset(buffer: Tensor | None) -> bool:
    if buffer is None or not buffer.numel():
        return False
    mark = _mark(buffer.dtype)
    return bool(buffer.isnan().any() if mark != mark else (buffer == mark).all())


def _mark(dtype: torch.dtype) -> float | int:
    """A value that no computed buffer consists of."""
    return float("nan") if dtype.is_floating_point else torch.iinfo(dtype).max
