"""Learners with adapters, one whose weights are the merged ones, and the weights that leave a learner."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corewarding.learner.learner import Learner
from corewarding.learner.lora.settings import LoraSettings
from corewarding.learner.settings import LearnerSettings
from tests.unit.learner.test_learner import plan_of

RANK, ALPHA = 4, 10
SCALE = ALPHA / RANK


def adapted(model: str, *, rank: int = 0, world_size: int = 1, filled: bool = True, **changes: Any) -> Learner:
    """A learner with adapters of rank RANK. filled: B is not zero; the same values on any number of ranks."""
    lora = LoraSettings(rank=RANK, alpha=ALPHA, **changes.pop("lora", {}))
    sizes = {"micro_batch_tokens": 10_000, "row_tokens": 24} | changes.pop("sizes", {})
    settings = LearnerSettings(lora=lora, **sizes)
    learner = Learner(plan_of(model, learner=settings, **changes), rank=rank, world_size=world_size)
    if filled:
        fill(learner)
    return learner


@torch.no_grad()
def fill(learner: Learner) -> None:
    """Other values for every B."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in zip(learner.sets.names, learner.sets.parameters, strict=True):
        values = torch.randn(parameter.shape, generator=generator) * 0.1
        if name.endswith("lora_B.weight"):
            first = learner.rank * -(-len(values) // learner.world_size)
            parameter.to_local().copy_(values[first : first + len(parameter.to_local())])


@torch.no_grad()
def with_merged_weights(learner: Learner, model: str) -> Learner:
    """A learner that trains all weights, which are what `learner` sends."""
    other = Learner(plan_of(model, kl_reference="none", kl_coef=0.0))
    sent = weights(learner)
    for name, local in zip(other.sets.names, other.sets.shards_of("policy"), strict=True):
        for part in other.sets.parts[name]:
            local.view(-1)[part.start : part.start + part.size] = sent[part.name].view(-1)
    return other


def weights(learner: Learner, channel: Any = "policy") -> dict[str, Tensor]:
    """What one rank sends, whole, by the names of the checkpoint."""
    return {s.name: s.part(s.start, s.stop - s.start).view(s.shape).clone() for s in learner.shards(channel)}


def gradients(learner: Learner) -> dict[str, Tensor]:
    """By the parameters' names in memory; whole."""
    named = zip(learner.sets.names, learner.sets.parameters, strict=True)
    return {name: parameter.grad.full_tensor() for name, parameter in named if parameter.grad is not None}


def values(learner: Learner, which: Any = "policy") -> dict[str, Tensor]:
    """Copies of the trained parameters of a set, by their names in memory."""
    return {n: local.clone() for n, local in zip(learner.sets.names, learner.sets.shards_of(which), strict=True)}
