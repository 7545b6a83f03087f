"""Whether a model fits the memory of a node: what its processes keep for certain, against its GPUs and its main memory.

All needs are lower bounds: activations, caches and most of what is gathered come on top. So what is refused here could never run.
Imports no torch.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from corewarding.actors.engines import ENGINES
from corewarding.dataflow.ids import Source
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.plan.memory import (
    ELEMENT,
    QUANTIZED,
    certain_bytes,
    host_bytes,
    in_gb,
    offloadable,
    rank_on_gpu,
)
from corewarding.launch.run.preflight.needs import Kind
from corewarding.weights.model_files import StoredModel

SMI_S = 20.0
MOST_RANKS = 4096
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The memory of one node, in bytes."""

    main: int
    gpu: int | None  # of its smallest GPU; None: not known


def memory_here() -> Memory:
    """The memory of this node, as far as this process may use it."""
    limits = [Path(name).read_text().strip() for name in _LIMITS if Path(name).is_file()]
    allowed = [int(limit) for limit in limits if limit.isdigit()]
    return Memory(main=min([psutil.virtual_memory().total, *allowed]), gpu=_smallest_gpu())


def rank_bytes(config: TrainConfig, model: StoredModel, ranks: int | None = None) -> int:
    """What one learner rank needs for certain, of so many; None: of those that the configuration has."""
    return certain_bytes(config, largest=model.largest, **_shares(config, model, ranks or config.learner.ranks))


def offloaded_bytes(config: TrainConfig, model: StoredModel) -> int:
    """What one learner rank on a GPU keeps in the main memory."""
    return host_bytes(config, **_shares(config, model, config.learner.ranks))


def _shares(config: TrainConfig, model: StoredModel, ranks: int) -> dict[str, int]:
    """What one rank has of the model."""
    elements = model.num_parameters // ranks
    trained = 0 if config.learner.lora.is_on else elements  # adapters and what belongs to them are small
    return {"elements": elements, "trained": trained, "initial": model.num_bytes // ranks}


def engine_bytes(config: TrainConfig, source: Source, model: StoredModel) -> int:
    """The weights of one engine; 0 for one that holds none on its node."""
    engine = config.engine_of(source)
    if not ENGINES[engine.kind].has_model_logprobs or engine.url is not None:
        return 0
    return int(model.num_parameters * (ELEMENT[engine.dtype] if engine.quantization is None else QUANTIZED))


def too_large(config: TrainConfig, model: StoredModel, processes: Mapping[Kind, int], memory: Memory) -> Iterator[str]:
    """What does not fit on a node, with the remedy. processes: their numbers there."""
    on_main, remedy = [], ""
    if ranks := processes.get("learner", 0):
        need = rank_bytes(config, model)
        if not rank_on_gpu(config):
            on_main.append((ranks, "learner rank", need))
        elif memory.gpu is not None:
            yield from _rank_too_large(config, model, memory.gpu)
        if away := offloaded_bytes(config, model):
            on_main.append((ranks, "offloaded part of a learner rank", away))
            remedy = "name less in learner.offload, "
    sources: tuple[Source, ...] = ("policy", "teacher")
    for source in sources:
        if num := processes.get(source, 0):
            if config.rollout.gpus_per_actor == 0:  # new weights are staged beside those in use
                on_main.append((num, f"{source} engine", 2 * engine_bytes(config, source, model)))
            elif memory.gpu is not None:
                yield from _engine_too_large(config, source, model, memory.gpu)
    need = sum(num * each for num, _, each in on_main)
    if need > memory.main:
        words = ", ".join(f"{num} x {what} of {in_gb(each)}" for num, what, each in on_main)
        yield (
            f"{_named(config, model)} does not fit: its processes here keep at least {in_gb(need)} ({words}), and this machine "
            f"has {in_gb(memory.main)}; {remedy}take a smaller model or GPUs, or spread the processes over more nodes"
        )


def _rank_too_large(config: TrainConfig, model: StoredModel, gpu: int) -> Iterator[str]:
    need, share = rank_bytes(config, model), min(1.0, config.learner.gpus_per_rank or 1.0)
    if need > share * gpu:
        enough = next(
            (n for n in range(config.learner.ranks, MOST_RANKS) if rank_bytes(config, model, n) <= share * gpu), None
        )
        more = "" if enough is None else f"raise learner.ranks from {config.learner.ranks} to at least {enough}, or "
        if set(offloadable(config)) - set(config.learner.offload):
            more += "keep state in the host's memory with learner.offload, or "
        yield (
            f"{_named(config, model)} does not fit: a learner rank needs at least {in_gb(need)} of weights, gradients, optimizer "
            f"and references, and learner.gpus_per_rank {config.learner.gpus_per_rank:g} of a GPU here is {in_gb(share * gpu)}; "
            f"{more}take a smaller model; `corewarding plan` shows every part"
        )


def _engine_too_large(config: TrainConfig, source: Source, model: StoredModel, gpu: int) -> Iterator[str]:
    engine = config.engine_of(source)
    if ENGINES[engine.kind].takes_memory_fraction:
        key, part = f"engine.memory_fraction {engine.memory_fraction:g}", engine.memory_fraction
    else:
        part = min(1.0, config.rollout.gpus_per_actor)
        key = f"rollout.gpus_per_actor {config.rollout.gpus_per_actor:g}"
    need = engine_bytes(config, source, model) // engine.tensor_parallel
    if need > part * gpu:
        yield (
            f"{_named(config, model)} does not fit: the {source}'s engine keeps {in_gb(need)} of weights on each GPU, and {key} "
            f"of a GPU here is {in_gb(part * gpu)}; raise engine.tensor_parallel and rollout.gpus_per_actor, or take a smaller "
            "model"
        )


def _named(config: TrainConfig, model: StoredModel) -> str:
    return f"model.path {config.model_folder} ({model.num_parameters / 10**6:,.1f} million parameters)"


def _smallest_gpu() -> int | None:
    """By nvidia-smi, because torch would take memory of the GPU to answer; None where there is none that it knows."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return None
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SMI_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    sizes = [int(line) for line in done.stdout.split() if line.isdigit()]
    return min(sizes) * 2**20 if sizes and done.returncode == 0 else None
