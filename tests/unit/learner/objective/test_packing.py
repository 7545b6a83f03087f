"""Packing keeps sequences apart, loses no token, and weighs each view by the whole update."""

import dataclasses
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from corewarding.dataflow.carriers import TrainingSample
from corewarding.learner.model import PolicyModel
from corewarding.learner.objective.packing import pack
from tests.unit.learner.conftest import make_samples


def separate_logprobs(policy: PolicyModel, sample: TrainingSample) -> Tensor:
    """[L] by a plain forward over prompt and completion, nothing shared."""
    ids = torch.from_numpy(np.concatenate([sample.prompt_token_ids, sample.token_ids])).long()[None]
    logits = policy.model(ids, use_cache=False).logits[0].log_softmax(-1)
    start = len(sample.prompt_token_ids) - 1
    return logits[start:-1].gather(-1, ids[0, start + 1 :, None])[:, 0]


@pytest.mark.parametrize(("row_tokens", "num_rows"), [(1000, 1), (48, None), (1, 15)])
def test_a_shared_prompt_gives_the_logprobs_and_gradients_of_separate_sequences(
    tiny_model: str, row_tokens: int, num_rows: int | None
) -> None:
    policy = PolicyModel(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), chunk_tokens=7)
    samples = {s.id: s for s in make_samples(5, group_size=3)}
    (packed,) = pack(list(samples.values()), micro_batch_tokens=10_000, row_tokens=row_tokens)[0]
    assert num_rows in (None, packed.input_ids.shape[0])
    coefficients = torch.linspace(-1, 1, len(packed.target_T))
    together = policy(packed)[0]
    (together * coefficients).sum().backward()
    shared = [p.grad.clone() for p in policy.parameters()]
    policy.zero_grad()
    alone = torch.cat([separate_logprobs(policy, samples[one]) for one in packed.ids])
    (alone * coefficients).sum().backward()
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    for mine, theirs in zip(shared, policy.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.grad, rtol=1e-4, atol=1e-5)


def test_a_prompt_is_computed_once_for_its_group_and_the_last_token_not_at_all() -> None:
    samples = make_samples(4, group_size=8)
    (packed,) = pack(samples, micro_batch_tokens=10_000, row_tokens=1000)[0]
    prompts = sum(len(s.prompt_token_ids) for s in samples[::8])
    in_trees = len(packed.layout.completion_index) + sum(tree.start - tree.begin for tree in packed.layout.trees)
    assert in_trees == prompts + sum(len(s.token_ids) - 1 for s in samples)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_micro_batches_keep_the_budget_and_are_balanced(ranks: int) -> None:
    samples = make_samples(40, group_size=4)
    budget = 100
    dealt = pack(samples, micro_batch_tokens=budget, row_tokens=24, ranks=ranks)
    sizes = [micro.input_ids.numel() for rank in dealt for micro in rank]
    assert max(sizes) <= budget
    assert max(sum(micro.input_ids.numel() for micro in rank) for rank in dealt) <= 1.3 * sum(sizes) / ranks


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
def test_each_views_weights_add_up_to_one_over_all_ranks(aggregation: Literal["token_mean", "sequence_mean"]) -> None:
    samples = make_samples(11, views=("original", "rephrased"))
    ranks = pack(samples, micro_batch_tokens=32, row_tokens=0, ranks=3, aggregation=aggregation)
    assert len({len(rank) for rank in ranks}) == 1
    micros = [micro for rank in ranks for micro in rank]
    assert sorted(one for micro in micros for one in micro.ids) == [s.id for s in samples]
    totals = {"original": 0.0, "rephrased": 0.0}
    for micro in micros:
        for index, one in enumerate(micro.ids):
            totals[one.view] += float(micro.tokens.weight_T[micro.tokens.sequence_T == index].sum())
    assert totals == pytest.approx({"original": 1, "rephrased": 1}, abs=1e-5)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
def test_a_samples_weight_scales_its_tokens_and_no_other(aggregation: Literal["token_mean", "sequence_mean"]) -> None:
    samples = make_samples(4, group_size=2)
    heavier = [dataclasses.replace(samples[0], weight=0.25), *samples[1:]]
    plain, weighed = (
        pack(some, micro_batch_tokens=10_000, row_tokens=1000, aggregation=aggregation)[0][0]
        for some in (samples, heavier)
    )
    own = weighed.tokens.sequence_T == weighed.ids.index(samples[0].id)
    torch.testing.assert_close(weighed.tokens.weight_T, torch.where(own, 0.25, 1.0) * plain.tokens.weight_T)
