"""Ranks of a learner without other ranks, and what they wrote, read back by another library."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from corewarding.learner.checkpoint.learner_state import Progress, StagedState
from corewarding.learner.model import load_policy
from corewarding.learner.parameter_sets import ParameterSets
from corewarding.learner.settings import LearnerSettings

PROGRESS = Progress(updates=7, teacher_updates=6, total_updates=40)


@dataclass
class Rank:
    """The parts of a learner's rank that a checkpoint holds, without other ranks: saving and loading asks none."""

    rank: int
    ranks: int
    sets: ParameterSets
    optimizer: torch.optim.AdamW

    def save(self, folder: Path) -> None:
        staged = StagedState()
        staged.take(self.sets, self.optimizer, progress=PROGRESS, rank=self.rank, ranks=self.ranks)
        staged.write(folder)


def rank_of(base: Path, rank: int, ranks: int, *, steps: int) -> Rank:
    """steps: AdamW's, with gradients that depend on the element and the step alone."""
    if dist.is_initialized():
        dist.destroy_process_group()
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    loaded = load_policy(str(base), LearnerSettings(), torch.device("cpu"), ranks)
    sets = ParameterSets(loaded.model)
    sets.keep("teacher")
    sets.keep("initial", loaded.base_dtypes)
    optimizer = torch.optim.AdamW(loaded.model.parameters(), lr=0.1)
    for step in range(steps):
        for parameter in sets.parameters[1:]:  # the first never has a gradient
            parameter.grad = parameter.detach() * (step + 1) + step
        optimizer.step()
        for teacher, policy in zip(sets.shards_of("teacher"), sets.shards_of("policy"), strict=True):
            teacher.lerp_(policy.detach(), 0.3)
    return Rank(rank, ranks, sets, optimizer)


def save(base: Path, ranks: int, folder: Path, *, steps: int = 3) -> None:
    for rank in range(ranks):
        rank_of(base, rank, ranks, steps=steps).save(folder)


def content(folder: Path) -> dict[str, Tensor]:
    """Every whole tensor of a state, flat, by what the safetensors library reads in its files."""
    parts: dict[str, list[tuple[int, Tensor]]] = {}
    for file in folder.glob("rank-*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            places = json.loads(opened.metadata()["shards"])
            for name in opened.keys():  # noqa: SIM118
                parts.setdefault(name, []).append((places[name]["start"], opened.get_tensor(name)))
    return {name: torch.cat([one for _, one in sorted(some, key=lambda p: p[0])]) for name, some in parts.items()}


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)
