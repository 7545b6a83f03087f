"""The learner's part of a checkpoint: parameter sets, AdamW's moments and steps, and counters. JSON and safetensors, no pickle.

    learner/{learner.json (rank 0), rank-00000-of-00002.safetensors, ...}

Each rank writes its own shards; any number of ranks reads them. No random state is saved, because an
update draws nothing. The schedules follow from the counters and the configuration.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corewarding.learner.checkpoint.manifest import INDEX, CheckpointError, read_object
from corewarding.learner.checkpoint.tensor_files import ShardFiles, write_shards
from corewarding.learner.model import first_element, local_shard
from corewarding.learner.offload import MEANS, empty_states
from corewarding.learner.parameter_sets import ParameterSets
from corewarding.weights.stream import Shard

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The learner's counters."""

    updates: int
    teacher_updates: int  # updates in the policy that the teacher absorbed last
    total_updates: int  # of the run: the schedules' length


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The content of learner.json."""

    ranks: int
    progress: Progress
    sets: tuple[str, ...]
    steps: Mapping[str, int]  # AdamW's, by parameter; a parameter that never had a gradient has none


class StagedState:
    """One rank's state at one moment, copied to the host's memory. The memory is used again by the next `take`."""

    def __init__(self) -> None:
        self._shards: list[Shard] = []
        self._index: Index | None = None
        self._rank = 0

    def take(
        self, sets: ParameterSets, optimizer: torch.optim.Optimizer, *, progress: Progress, rank: int, ranks: int
    ) -> None:
        """Copies everything that `load` restores. What was taken before must be written by then."""
        now = _shards(sets, optimizer)
        buffers = {shard.name: shard.local for shard in self._shards}
        self._shards = [dataclasses.replace(shard, local=_buffer(shard, buffers)) for shard in now]
        for buffer, shard in zip(self._shards, now, strict=True):
            buffer.local.copy_(shard.local, non_blocking=True)
        if any(shard.local.is_cuda for shard in now):
            torch.cuda.synchronize()
        steps = {
            name: int(optimizer.state[p]["step"])
            for name, p in zip(sets.names, sets.parameters, strict=True)
            if optimizer.state.get(p)
        }
        self._rank = rank
        self._index = Index(ranks=ranks, progress=progress, sets=("policy", *sets.kept), steps=steps)

    def write(self, folder: Path) -> None:
        """Writes this rank's file; rank 0 also writes the index. Touches no model, so updates may go on."""
        assert self._index is not None, "nothing was taken"
        folder.mkdir(parents=True, exist_ok=True)
        write_shards(folder / _file(self._rank, self._index.ranks), self._shards)
        if self._rank == 0:
            content = {"format": FORMAT, **dataclasses.asdict(self._index)}
            (folder / INDEX).write_text(json.dumps(content, indent=1))


def read_index(folder: Path) -> Index:
    """CheckpointError if the folder holds no learner state of this format."""
    content = read_object(folder / INDEX)
    if content.pop("format", None) != FORMAT:
        raise CheckpointError(f"{folder / INDEX} is of another version of corewarding")
    try:
        index = Index(
            **content
            | {
                "progress": Progress(**content["progress"]),
                "sets": tuple(content["sets"]),
                "steps": dict(content["steps"]),
            }
        )
        numbers = (index.ranks, *dataclasses.astuple(index.progress), *index.steps.values())
        whole = all(type(value) is int and value >= 0 for value in numbers) and 0 < index.ranks < 100_000
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise CheckpointError(f"{folder / INDEX} is garbled")
    return index


def open_state(folder: Path) -> tuple[Index, ShardFiles]:
    """The index and the tensors of a learner state. CheckpointError if something is missing."""
    index = read_index(folder)
    return index, ShardFiles(folder / _file(rank, index.ranks) for rank in range(index.ranks))


def load(folder: Path, *, sets: ParameterSets, optimizer: torch.optim.Optimizer) -> Progress:
    """Restores parameter sets and optimizer in place, on any number of ranks."""
    index, files = open_state(folder)
    parameters = list(zip(sets.names, sets.parameters, strict=True))
    for kept in ("policy", *sets.kept):
        if kept not in index.sets:
            raise CheckpointError(f"{folder} holds no {kept} weights, which this configuration needs")
        for (name, parameter), local in zip(parameters, sets.shards_of(kept), strict=True):
            _read(files, f"{kept}/{name}", parameter, local)
    optimizer.state.clear()
    moved = [(name, parameter) for name, parameter in parameters if name in index.steps]
    states = empty_states(optimizer, [parameter for _, parameter in moved])
    for (name, parameter), state in zip(moved, states, strict=True):
        for key in MEANS:
            _read(files, f"{key}/{name}", parameter, local_shard(state[key]))
        state["step"].fill_(index.steps[name])
        optimizer.state[parameter] = state
    return index.progress


def _read(files: ShardFiles, name: str, parameter: Tensor, local: Tensor) -> None:
    files.read(name, tuple(parameter.shape), first_element(parameter), local.detach().view(-1))


def _shards(sets: ParameterSets, optimizer: torch.optim.Optimizer) -> list[Shard]:
    """Views of everything on this rank."""
    found = []

    def add(kind: str, name: str, parameter: Tensor, local: Tensor) -> None:
        start, flat = first_element(parameter), local.detach().reshape(-1)
        found.append(Shard(name=f"{kind}/{name}", shape=tuple(parameter.shape), start=start, local=flat))

    parameters = list(zip(sets.names, sets.parameters, strict=True))
    for kept in ("policy", *sets.kept):
        for (name, parameter), local in zip(parameters, sets.shards_of(kept), strict=True):
            add(kept, name, parameter, local)
    for name, parameter in parameters:
        state: dict[str, Any] = optimizer.state.get(parameter, {})
        for key in MEANS:
            if key in state:
                add(key, name, parameter, local_shard(state[key]))
    return found


def _buffer(shard: Shard, buffers: Mapping[str, Tensor]) -> Tensor:
    """Host memory for a shard: that of the last time if it fits."""
    old = buffers.get(shard.name)
    if old is not None and (old.shape, old.dtype) == (shard.local.shape, shard.local.dtype):
        return old
    return torch.empty_like(shard.local, device="cpu", pin_memory=shard.local.is_cuda)


def _file(rank: int, ranks: int) -> str:
    return f"rank-{rank:05d}-of-{ranks:05d}.safetensors"
