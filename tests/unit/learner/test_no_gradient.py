"""Samples whose loss has no gradient are passed forward only, and change nothing but the time: gradient, metrics, steps and ranks."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor

from corewarding.dataflow.carriers import TrainBatch, TrainingSample
from corewarding.learner import passes
from corewarding.learner.learner import Learner
from corewarding.learner.objective.packing import MicroBatch, pack
from corewarding.learner.settings import LearnerPlan, LearnerSettings, TeacherSettings, TrainSettings
from tests.unit.learner.conftest import make_samples

NONE = {"kl_coef": 0.0, "kl_reference": "none"}
TEACHER = {"kl_coef": 0.01, "kl_reference": "teacher"}


def plan_of(model: str, **changes: Any) -> LearnerPlan:
    values: dict[str, Any] = {
        **NONE,
        "model_path": model,
        "keep_teacher": True,
        "train": TrainSettings(lr=1e-2, updates=4, warmup_frac=0.0, schedule="constant"),
        "learner": LearnerSettings(micro_batch_tokens=48, row_tokens=24),
        "teacher": TeacherSettings(alpha_start=0.3, alpha_end=0.1),
    }
    return LearnerPlan(**(values | changes))


def mixed(num: int = 12) -> list[TrainingSample]:
    """Every third group has a zero advantage, one sample no loss token and one no weight."""
    samples = [
        dataclasses.replace(s, advantage=0.0) if i // 2 % 3 == 0 else s
        for i, s in enumerate(make_samples(num, group_size=2, seed=7))
    ]
    samples[2] = dataclasses.replace(samples[2], loss_mask=np.zeros_like(samples[2].loss_mask))
    samples[5] = dataclasses.replace(samples[5], weight=0.0)
    return samples


def all_train(learner: Learner, samples: list[TrainingSample]) -> list[MicroBatch]:
    """Micro-batches that all have a backward pass."""
    settings = learner.plan.learner
    return pack(samples, micro_batch_tokens=settings.micro_batch_tokens, row_tokens=settings.row_length())[0]


def gradients(learner: Learner) -> list[Tensor]:
    return [p.grad.full_tensor().clone() for p in learner.model.parameters()]


def distance(one: list[Tensor], other: list[Tensor]) -> float:
    """As a share of the norm."""
    norm = torch.stack([g.norm() for g in other]).norm()
    return float(torch.stack([(x - y).norm() for x, y in zip(one, other, strict=True)]).norm() / norm)


@pytest.mark.parametrize(("kl", "without"), [(NONE, [0, 1, 2, 5, 6, 7, 12, 13, 18, 19]), (TEACHER, [2, 5])])
def test_gradient_and_metrics_are_those_of_a_backward_pass_for_all(
    tiny_model: str, kl: Any, without: list[int]
) -> None:
    learner, samples = Learner(plan_of(tiny_model, **kl)), mixed()
    micros = learner.pack(samples)
    forward_only = sorted(one for micro in micros if not micro.trains for one in micro.ids)
    assert forward_only == [samples[i].id for i in without]
    metrics, gradient = learner.accumulate(micros), gradients(learner)
    learner.optimizer.zero_grad()
    everything = all_train(learner, samples)
    assert all(micro.trains for micro in everything)
    expected = learner.accumulate(everything)
    assert distance(gradient, gradients(learner)) < 1e-5
    assert metrics == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_forward_only_builds_no_graph_and_leaves_the_gradient(tiny_model: str) -> None:
    learner = Learner(plan_of(tiny_model))
    silent = [micro for micro in learner.pack(mixed()) if not micro.trains]
    learner.accumulate(silent)
    assert [p.grad for p in learner.model.parameters()] == [None] * len(list(learner.model.parameters()))


def test_an_update_without_any_gradient_steps_as_one_of_zeros(tiny_model: str) -> None:
    """AdamW goes on by its means, as it would with a backward pass that gives zeros."""
    first = TrainBatch(incarnation=0, update=1, samples=make_samples(4))
    second = tuple(dataclasses.replace(s, advantage=0.0) for s in make_samples(4, seed=1, version=1))
    learner, other = Learner(plan_of(tiny_model)), Learner(plan_of(tiny_model))
    for one in (learner, other):
        one.update(first)
    before = [p.full_tensor().clone() for p in learner.model.parameters()]
    result = learner.update(TrainBatch(incarnation=0, update=2, samples=second))
    for parameter in other.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    other.optimizer.step()
    assert not result.skipped
    assert result.metrics.scalars["policy/entropy"] > 0
    for moved, old, expected in zip(learner.model.parameters(), before, other.model.parameters(), strict=True):
        assert not torch.equal(moved.full_tensor(), old)
        torch.testing.assert_close(moved.full_tensor(), expected.full_tensor(), rtol=0, atol=0)


def _rank(rank: int, folder: str, model: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    learner = Learner(plan_of(model), rank=rank, world_size=2)
    micros = learner.pack(mixed())
    counts: list[Any] = [None, None]
    torch.distributed.all_gather_object(counts, [micro.trains for micro in micros])
    metrics = learner.accumulate(micros)
    full = gradients(learner)
    if rank == 0:
        torch.save({"gradients": full, "metrics": metrics, "counts": counts}, f"{folder}/result")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_ranks_pass_the_same_number_forward_and_have_the_numbers_of_one(tiny_model: str, tmp_path: Path) -> None:
    mp.start_processes(_rank, (str(tmp_path), tiny_model), nprocs=2, start_method="forkserver")
    two = torch.load(tmp_path / "result", weights_only=False)
    assert two["counts"][0] == two["counts"][1]
    assert set(two["counts"][0]) == {True, False}
    learner = Learner(plan_of(tiny_model))
    metrics = learner.accumulate(all_train(learner, mixed()))
    assert distance(two["gradients"], gradients(learner)) < 1e-5
    assert two["metrics"] == pytest.approx(metrics, rel=1e-5, abs=1e-6)


def test_a_scheduled_kl_term_brings_the_backward_passes_back(tiny_model: str) -> None:
    plan = plan_of(tiny_model, **TEACHER)
    off, on = dataclasses.replace(plan, kl_coef=0.0), plan
    silent = next(s for s in mixed() if s.advantage == 0)
    assert not passes.has_gradient(silent, off)
    assert passes.has_gradient(silent, on)
    learner = Learner(dataclasses.replace(off, later=((2, on),)))
    assert [micro.trains for micro in learner.pack([silent], learner.plan.of_update(2))] == [True, False]
    assert [micro.trains for micro in learner.pack([silent], learner.plan.of_update(3))] == [True]
