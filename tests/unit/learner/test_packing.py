"""Packing keeps sequences apart, loses no token, and weighs each view by the whole update."""

import numpy as np
import pytest
import torch

from learner.model import load_policy
from learner.packing import pack
from tests.unit.learner.conftest import make_samples


def test_packed_sequences_do_not_see_each_other(tiny_model):
    """Rows of several sequences give the logprobs of separate forwards: what a cache would silently break."""
    policy = load_policy(tiny_model, chunk_tokens=7, activation_checkpointing=False)
    samples = make_samples(9)
    (packed,) = pack(samples, micro_batch_tokens=10_000, row_tokens=48)[0]
    assert packed.input_ids.shape[0] < len(samples)
    with torch.no_grad():
        together = policy(packed)[0]
        for index, one in enumerate(packed.ids):
            sample = next(s for s in samples if s.id == one)
            ids = torch.from_numpy(np.concatenate([sample.prompt_token_ids, sample.token_ids])).long()[None]
            logits = policy.model(ids, use_cache=False).logits[0].log_softmax(-1)
            start = len(sample.prompt_token_ids) - 1
            alone = logits[start:-1].gather(-1, ids[0, start + 1 :, None])[:, 0]
            torch.testing.assert_close(together[packed.tokens.sequence_T == index], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
def test_each_views_weights_add_up_to_one_over_all_ranks(aggregation):
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
