"""The gradient of an update, by the learner and by transformers with one forward for each sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from corewarding.dataflow.carriers import TrainingSample
from corewarding.learner.learner import Learner
from corewarding.learner.objective.loss import objective
from corewarding.learner.objective.packing import pack
from corewarding.learner.settings import LearnerPlan, LearnerSettings
from tests.toy_models import toy_model
from tests.unit.learner.conftest import make_samples


def plan_for(folder: str) -> LearnerPlan:
    return LearnerPlan(
        model_path=folder,
        kl_coef=0.0,
        kl_reference="none",
        keep_teacher=False,
        learner=LearnerSettings(row_tokens=48, logprob_chunk_tokens=7),
    )


def samples_of(seed: int, *, num: int = 8, group_size: int = 3) -> tuple[TrainingSample, ...]:
    """Two views; groups share their prompts; temperatures and ages differ."""
    samples = make_samples(num, seed=seed, views=("original", "rephrased"), version=0, group_size=group_size)
    temperatures = np.random.default_rng(seed).uniform(0.6, 1.0, len(samples))
    return tuple(dataclasses.replace(s, temperature=float(t)) for s, t in zip(samples, temperatures, strict=True))


def separate(model: Any, samples: Sequence[TrainingSample]) -> Tensor:
    """[T] by one forward for each sequence: nothing packed, padded or shared."""
    return torch.cat([chosen(model(ids_of(s)[None], use_cache=False).logits[0], s) for s in samples])


def padded(model: Any, samples: Sequence[TrainingSample]) -> Tensor:
    """[T] by one forward of all sequences, padded on the right."""
    longest = max(len(ids_of(s)) for s in samples)
    rows = torch.stack([torch.nn.functional.pad(ids_of(s), (0, longest - len(ids_of(s)))) for s in samples])
    mask = torch.stack([(torch.arange(longest) < len(ids_of(s))).long() for s in samples])
    logits = model(rows, attention_mask=mask, use_cache=False).logits
    return torch.cat([chosen(own, s) for own, s in zip(logits, samples, strict=True)])


def chosen(logits: Tensor, sample: TrainingSample) -> Tensor:
    """[L] log-probabilities of the completion at the sample's temperature."""
    start = len(sample.prompt_token_ids) - 1
    logprobs = (logits[start : start + len(sample.token_ids)] / sample.temperature).log_softmax(-1)
    return logprobs.gather(-1, torch.from_numpy(sample.token_ids).long()[:, None])[:, 0]


def ids_of(sample: TrainingSample) -> Tensor:
    """[P + L] int64 prompt and completion."""
    return torch.from_numpy(np.concatenate([sample.prompt_token_ids, sample.token_ids])).long()


def plain_gradient(name: str, samples: Sequence[TrainingSample], plan: LearnerPlan) -> dict[str, Tensor]:
    """By parameter: of the whole update's loss, from log-probabilities that transformers computes for each sequence alone."""
    by_id = {sample.id: sample for sample in samples}
    (micro,) = pack(samples, micro_batch_tokens=10**6, row_tokens=1)[0]  # only its tokens and weights are used
    model = toy_model(name).eval()
    logprobs = separate(model, [by_id[one] for one in micro.ids])
    step = objective(logprobs, micro.tokens, reference_T=None, beta=0.0, loss=plan.loss, correction=plan.correction)
    step.loss.backward()
    return {key: p.grad if p.grad is not None else torch.zeros_like(p) for key, p in model.named_parameters()}


def learner_gradient(
    learner: Learner, samples: Sequence[TrainingSample], *, micro_batch_tokens: int, row_tokens: int
) -> dict[str, Tensor]:
    """By parameter: of the update, cut into micro-batches by these budgets."""
    settings = learner.plan.learner.model_copy(
        update={"micro_batch_tokens": micro_batch_tokens, "row_tokens": row_tokens}
    )
    learner.plan = dataclasses.replace(learner.plan, learner=settings)
    learner.optimizer.zero_grad(set_to_none=True)
    learner.accumulate(learner.pack(samples))
    found = {}
    for key, parameter in learner.model.model.named_parameters():
        gradient = parameter.grad
        assert gradient is not None
        found[key] = (gradient.full_tensor() if isinstance(gradient, DTensor) else gradient).clone()
    return found


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The norm of the difference, as a share of the norm of `other`."""
    assert one.keys() == other.keys()
    difference = torch.stack([(one[key] - other[key]).norm() for key in other]).norm()
    return float(difference / torch.stack([g.norm() for g in other.values()]).norm())
