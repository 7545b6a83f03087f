"""bfloat16 forward and backward: as near to float32 as a plain Hugging Face model, on every path of the learner."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.bf16_gradient import distances, sampled_batch
from corewarding.dataflow.carriers import TrainBatch
from corewarding.learner.learner import Learner
from corewarding.learner.settings import LearnerPlan, LearnerSettings, TrainSettings
from tests.unit.learner.conftest import make_samples

BASE = str(Path(__file__).resolve().parents[3] / "models" / "arithmetic-base")


def learner_of(model: str, dtype: str, *, checkpointing: bool = False) -> Learner:
    settings = LearnerSettings.model_validate(
        {"param_dtype": dtype, "activation_checkpointing": checkpointing, "row_tokens": 24}
    )
    return Learner(
        LearnerPlan(
            model_path=model,
            kl_coef=0.01,
            kl_reference="teacher",
            keep_teacher=True,
            learner=settings,
            train=TrainSettings(lr=1e-3, warmup_frac=0.0),
        )
    )


def test_the_gradient_is_as_near_as_a_plain_models() -> None:
    measured = [distances(BASE, sampled_batch(BASE, seed=seed, questions=8)) for seed in range(5)]
    assert max(one.ours for one in measured) < 0.02
    ours, theirs = ([getattr(one, name) for one in measured] for name in ("ours", "hugging_face"))
    assert statistics.median(ours) <= 1.1 * statistics.median(theirs)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_update_statistics_and_logprobs_agree_with_float32(tiny_model: str, checkpointing: bool) -> None:
    samples = [dataclasses.replace(one, temperature=0.7) for one in make_samples(6, group_size=2)]
    half = learner_of(tiny_model, "bfloat16", checkpointing=checkpointing)
    exact = learner_of(tiny_model, "float32")
    for mine, theirs in zip(half.token_statistics(samples), exact.token_statistics(samples), strict=True):
        assert mine.entropy == pytest.approx(theirs.entropy, abs=2e-3)
        assert mine.self_certainty == pytest.approx(theirs.self_certainty, abs=2e-3)
    for which in ("policy", "teacher"):
        for mine, theirs in zip(half.logprobs(samples, which), exact.logprobs(samples, which), strict=True):
            assert mine.dtype == np.float32
            np.testing.assert_allclose(mine, theirs, atol=0.02)
    results = [one.update(TrainBatch(incarnation=0, update=1, samples=tuple(samples))) for one in (half, exact)]
    a, b = (result.metrics.scalars for result in results)
    assert a["train/grad_norm"] == pytest.approx(b["train/grad_norm"], rel=0.02)
    assert a["policy/logprob"] == pytest.approx(b["policy/logprob"], abs=2e-3)


def test_checkpointed_activations_are_bfloat16_and_change_no_bit(tiny_model: str) -> None:
    samples = make_samples(6, group_size=2)
    gradients = []
    for checkpointing in (False, True):
        learner = learner_of(tiny_model, "bfloat16", checkpointing=checkpointing)
        seen: list[torch.dtype] = []
        for layer in learner.model.layers:
            layer.register_forward_hook(lambda _module, _inputs, output, seen=seen: seen.append(output.dtype))
        learner.accumulate(learner.pack(samples))
        assert set(seen) == {torch.bfloat16}
        gradients.append([p.grad.full_tensor() for p in learner.model.parameters()])
        assert {gradient.dtype for gradient in gradients[-1]} == {torch.float32}
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_temperatures_reach_the_head_unrounded(tiny_model: str) -> None:
    """0.7 in bfloat16 is 0.69922: every logprob would be wrong by about a thousandth."""
    learner = learner_of(tiny_model, "bfloat16")
    seen: list[torch.Tensor] = []
    samples = [dataclasses.replace(one, temperature=0.7) for one in make_samples(2)]
    (micro,) = learner.pack(samples)
    learner.model.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].temperature_T))
    learner.model(micro)
    assert torch.equal(seen[0], torch.full_like(micro.temperature_T, 0.7))
