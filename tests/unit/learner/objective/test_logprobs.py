"""Chunked logprobs equal the naive ones, with their gradients."""

import math

import pytest
import torch

from corewarding.learner.objective.logprobs import token_logprobs


def naive(hidden, weight, temperature):
    return (hidden @ weight.T / temperature[:, None]).log_softmax(-1)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_values_and_gradients(chunk):
    torch.manual_seed(0)
    hidden, weight = torch.randn(7, 5), torch.randn(11, 5)
    target, temperature = torch.randint(0, 11, (7,)), torch.rand(7) + 0.5
    cotangent = torch.randn(7)
    results = []
    for function in (
        lambda h, w: token_logprobs(h, w, target, temperature, chunk=chunk)[0],
        lambda h, w: naive(h, w, temperature).gather(-1, target[:, None])[:, 0],
    ):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        value = function(h, w)
        value.backward(cotangent)
        results.append((value.detach(), h.grad, w.grad))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_statistics_by_definition():
    torch.manual_seed(1)
    hidden, weight, temperature = torch.randn(4, 3), torch.randn(6, 3), torch.ones(4)
    target = torch.zeros(4, dtype=torch.int64)
    _, entropy, certainty = token_logprobs(hidden, weight, target, temperature, chunk=3, statistics=True)
    logprobs = naive(hidden, weight, temperature)
    torch.testing.assert_close(entropy, -(logprobs.exp() * logprobs).sum(-1))
    uniform = torch.full((6,), 1 / 6)
    torch.testing.assert_close(certainty, (uniform * (math.log(1 / 6) - logprobs)).sum(-1), rtol=1e-5, atol=1e-6)
