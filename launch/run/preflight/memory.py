"""Whether a model fits the memory of a node: what its processes keep for certain, against its GPUs and its main memory.

All needs are lower bounds: activations, caches and gathered layers come on top. So what is refused here could never run.
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
from corewarding.launch.run.preflight.needs import Kind
from corewarding.weights.model_files import StoredModel

GB, MB = 10**9, 10**6
TRAINED, TEACHER = 16, 4
"""Bytes of a parameter in the learner: float32 weight, gradient and the two means of AdamW; float32 weight of the teacher."""
ELEMENT = {"float32": 4.0, "bfloat16": 2.0}
QUANTIZED = 0.5
"""The fewest bytes of a weight that an engine quantizes."""
SMI_S = 20.0
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


def in_words(num_bytes: float) -> str:
    """As GB, or MB if it is less than one."""
    return f"{num_bytes / GB:.1f} GB" if num_bytes >= GB else f"{num_bytes / MB:.1f} MB"


def rank_bytes(config: TrainConfig, model: StoredModel) -> int:
    """What one learner rank keeps."""
    if config.learner.lora.is_on:  # adapters, their optimizer and their teacher are small beside the frozen weights
        element = ELEMENT[config.learner.param_dtype]
        return (
            int(max(element, min(4, model.num_bytes / model.num_parameters)) * model.num_parameters)
            // config.learner.ranks
        )
    total = (TRAINED + TEACHER * config.keeps_teacher) * model.num_parameters
    if config.kl_reference == "initial" and config.kl_coef > 0:
        total += model.num_bytes
    return total // config.learner.ranks


def engine_bytes(config: TrainConfig, source: Source, model: StoredModel) -> int:
    """The weights of one engine; 0 for one that holds none on its node."""
    engine = config.engine_of(source)
    if not ENGINES[engine.kind].has_model_logprobs or engine.url is not None:
        return 0
    return int(model.num_parameters * (ELEMENT[engine.dtype] if engine.quantization is None else QUANTIZED))


def too_large(config: TrainConfig, model: StoredModel, processes: Mapping[Kind, int], memory: Memory) -> Iterator[str]:
    """What does not fit on a node, with the remedy. processes: their numbers there."""
    learner, on_main = config.learner, []
    if ranks := processes.get("learner", 0):
        need = rank_bytes(config, model)
        if learner.device == "cpu" or (learner.device == "auto" and learner.gpus_per_rank == 0):
            on_main.append((ranks, "learner rank", need))
        elif memory.gpu is not None:
            yield from _rank_too_large(config, model, memory.gpu)
    sources: tuple[Source, ...] = ("policy", "teacher")
    for source in sources:
        if num := processes.get(source, 0):
            if config.rollout.gpus_per_actor == 0:  # new weights are staged beside those in use
                on_main.append((num, f"{source} engine", 2 * engine_bytes(config, source, model)))
            elif memory.gpu is not None:
                yield from _engine_too_large(config, source, model, memory.gpu)
    need = sum(num * each for num, _, each in on_main)
    if need > memory.main:
        words = ", ".join(f"{num} x {what} of {in_words(each)}" for num, what, each in on_main)
        yield (
            f"{_named(config, model)} does not fit: its processes here keep at least {in_words(need)} ({words}), and this machine "
            f"has {in_words(memory.main)}; take a smaller model or GPUs, or spread the processes over more nodes"
        )


def _rank_too_large(config: TrainConfig, model: StoredModel, gpu: int) -> Iterator[str]:
    need, share = rank_bytes(config, model), min(1.0, config.learner.gpus_per_rank or 1.0)
    if need > share * gpu:
        enough = -(-need * config.learner.ranks // int(share * gpu))
        yield (
            f"{_named(config, model)} does not fit: a learner rank keeps at least {in_words(need)} of weights, gradients, optimizer "
            f"and references, and learner.gpus_per_rank {config.learner.gpus_per_rank:g} of a GPU here is {in_words(share * gpu)}; "
            f"raise learner.ranks from {config.learner.ranks} to at least {enough}, or take a smaller model"
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
            f"{_named(config, model)} does not fit: the {source}'s engine keeps {in_words(need)} of weights on each GPU, and {key} "
            f"of a GPU here is {in_words(part * gpu)}; raise engine.tensor_parallel and rollout.gpus_per_actor, or take a smaller "
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
