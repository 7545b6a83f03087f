"""Token logprobs from hidden states, without the logits of all tokens ever existing at once."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class ChunkedLogprobs(torch.autograd.Function):
    """log_softmax(h W^T / temperature)[target], `chunk` tokens at a time; the backward pass makes the logits again.

    Peak extra memory is one [chunk, V] fp32 block (two in the backward pass), instead of [T, V].
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden_TH: Tensor, weight_VH: Tensor, target_T: Tensor, temperature_T: Tensor, chunk: int
    ) -> Tensor:
        logprob_T = hidden_TH.new_empty(len(target_T), dtype=torch.float32)
        logsum_T = torch.empty_like(logprob_T)
        for rows in _chunks(len(target_T), chunk):
            logits = _scaled_logits(hidden_TH[rows], weight_VH, temperature_T[rows])
            logsum_T[rows] = logits.logsumexp(-1)
            logprob_T[rows] = logits.gather(-1, target_T[rows, None]).squeeze(-1) - logsum_T[rows]
        ctx.save_for_backward(hidden_TH, weight_VH, target_T, temperature_T, logsum_T)
        ctx.chunk = chunk
        return logprob_T

    @staticmethod
    def backward(ctx: Any, grad_T: Tensor) -> tuple[Tensor, Tensor, None, None, None]:  # type: ignore[override]
        hidden_TH, weight_VH, target_T, temperature_T, logsum_T = ctx.saved_tensors
        grad_hidden = torch.zeros_like(hidden_TH)
        grad_weight = torch.zeros_like(weight_VH, dtype=torch.float32)
        for rows in _chunks(len(target_T), ctx.chunk):
            logits = _scaled_logits(hidden_TH[rows], weight_VH, temperature_T[rows])
            scale = (grad_T[rows] / temperature_T[rows])[:, None]
            grad_logits = (logits - logsum_T[rows, None]).exp_().mul_(-scale)
            grad_logits.scatter_add_(-1, target_T[rows, None], scale)
            grad_logits = grad_logits.to(hidden_TH.dtype)
            grad_hidden[rows] = grad_logits @ weight_VH
            grad_weight += (grad_logits.T @ hidden_TH[rows]).float()
        return grad_hidden, grad_weight.to(weight_VH.dtype), None, None, None


def token_logprobs(
    hidden_TH: Tensor, weight_VH: Tensor, target_T: Tensor, temperature_T: Tensor, *, chunk: int
) -> Tensor:
    """[T] float32 logprob of each target under log_softmax(h W^T / temperature); differentiable in h and W."""
    logprobs: Tensor = ChunkedLogprobs.apply(hidden_TH, weight_VH, target_T, temperature_T, chunk)
    return logprobs


@torch.no_grad()
def distribution_statistics(
    hidden_TH: Tensor, weight_VH: Tensor, temperature_T: Tensor, *, chunk: int
) -> tuple[Tensor, Tensor]:
    """([T] entropy, [T] self-certainty) in nats. Self-certainty is KL(uniform || p) = -log V - mean_v log p_v (Intuitor,
    arXiv 2505.19590)."""
    entropy_T = hidden_TH.new_empty(len(hidden_TH), dtype=torch.float32)
    certainty_T = torch.empty_like(entropy_T)
    for rows in _chunks(len(hidden_TH), chunk):
        logits = _scaled_logits(hidden_TH[rows], weight_VH, temperature_T[rows])
        logsum = logits.logsumexp(-1, keepdim=True)
        certainty_T[rows] = -math.log(logits.shape[-1]) - (logits - logsum).mean(-1)
        logprobs = logits.sub_(logsum)
        entropy_T[rows] = -(logprobs.exp() * logprobs).sum(-1)
    return entropy_T, certainty_T


def _scaled_logits(hidden: Tensor, weight_VH: Tensor, temperature: Tensor) -> Tensor:
    return (hidden @ weight_VH.T).float() / temperature[:, None]


def _chunks(num: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, num)) for start in range(0, num, size)]
