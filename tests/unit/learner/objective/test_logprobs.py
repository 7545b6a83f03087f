"""Chunked logprobs equal the naive ones, with their gradients."""

import math

import pytest
import torch
from torch import Tensor

from corewarding.learner.objective import logprobs
from corewarding.learner.objective.logprobs import token_logprobs


def naive(hidden: Tensor, weight: Tensor, temperature: Tensor) -> Tensor:
    return (hidden @ weight.T / temperature[:, None]).log_softmax(-1)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_values_and_gradients(chunk: int) -> None:
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


def test_statistics_by_definition() -> None:
    torch.manual_seed(1)
    hidden, weight, temperature = torch.randn(4, 3), torch.randn(6, 3), torch.ones(4)
    target = torch.zeros(4, dtype=torch.int64)
    _, entropy, certainty = token_logprobs(hidden, weight, target, temperature, chunk=3, statistics=True)
    exact = naive(hidden, weight, temperature)
    torch.testing.assert_close(entropy, -(exact.exp() * exact).sum(-1))
    uniform = torch.full((6,), 1 / 6)
    torch.testing.assert_close(certainty, (uniform * (math.log(1 / 6) - exact)).sum(-1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("chunk", [2, 100])
@pytest.mark.parametrize("block", [16, 2**24])
def test_half_precision_inputs_are_multiplied_and_summed_in_float32(
    dtype: torch.dtype, chunk: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the same inputs in float64: only the returned gradients are rounded to the inputs' type, and once."""
    monkeypatch.setattr(logprobs, "FLOAT32_BLOCK", block)
    torch.manual_seed(2)
    hidden, weight = torch.randn(9, 6).to(dtype), torch.randn(40, 6).to(dtype)
    target, temperature = torch.randint(0, 40, (9,)), torch.rand(9) + 0.5
    h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    value, entropy, _ = token_logprobs(h, w, target, temperature, chunk=chunk, statistics=True)
    value.sum().backward()
    h64, w64 = hidden.double().requires_grad_(), weight.double().requires_grad_()
    exact = naive(h64, w64, temperature.double())
    exact.gather(-1, target[:, None]).sum().backward()
    assert value.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact.gather(-1, target[:, None])[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy.double(), -(exact.exp() * exact).sum(-1), rtol=1e-5, atol=1e-5)
    once = torch.finfo(dtype).eps / 2 + 1e-5
    torch.testing.assert_close(h.grad.double(), h64.grad, rtol=once, atol=1e-6)
    torch.testing.assert_close(w.grad.double(), w64.grad, rtol=once, atol=1e-6)
