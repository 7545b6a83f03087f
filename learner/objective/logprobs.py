"""Token logprobs from hidden states, without holding the logits of all tokens at one time."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

FLOAT32_BLOCK = 2**24
"""Elements of the head, or of its gradient, of which there is a second copy at one time (64 MiB)."""


class ChunkedLogprobs(torch.autograd.Function):
    """log_softmax(h W^T / temperature)[target], `chunk` tokens at a time; the backward pass recomputes the logits.

    Entropy and self-certainty come from the same logits, without gradient.

    Peak extra memory is one [chunk, V] fp32 block (two in the backward pass), instead of [T, V].
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden_TH: Tensor,
        weight_VH: Tensor,
        target_T: Tensor,
        temperature_T: Tensor,
        chunk: int,
        statistics: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        logprob_T = hidden_TH.new_empty(len(target_T), dtype=torch.float32)
        logsum_T = torch.empty_like(logprob_T)
        entropy_T = torch.empty_like(logprob_T) if statistics else None
        certainty_T = torch.empty_like(logprob_T) if statistics else None
        block = _block(hidden_TH, weight_VH, chunk)
        for rows in _chunks(len(target_T), chunk):
            logits = _scaled_logits(hidden_TH[rows], weight_VH, temperature_T[rows], block)
            few = max(1, FLOAT32_BLOCK // logits.shape[-1])  # rows of which there is a second copy
            logsum_T[rows] = torch.cat([part.logsumexp(-1) for part in logits.split(few)])
            logprob_T[rows] = logits.gather(-1, target_T[rows, None]).squeeze(-1) - logsum_T[rows]
            if entropy_T is not None and certainty_T is not None:
                logprobs = logits.sub_(logsum_T[rows, None])
                certainty_T[rows] = -math.log(logits.shape[-1]) - logprobs.mean(-1)
                entropy_T[rows] = torch.cat([-(part.exp().mul_(part)).sum(-1) for part in logprobs.split(few)])
                del logprobs
            del logits  # before the next are made
        ctx.save_for_backward(hidden_TH, weight_VH, target_T, temperature_T, logsum_T)
        ctx.chunk = chunk
        ctx.mark_non_differentiable(*(extra for extra in (entropy_T, certainty_T) if extra is not None))
        return logprob_T, entropy_T, certainty_T

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad_T: Tensor, *_: Tensor | None
    ) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        hidden_TH, weight_VH, target_T, temperature_T, logsum_T = ctx.saved_tensors
        grad_hidden = torch.zeros_like(hidden_TH)
        trains_head = ctx.needs_input_grad[1]
        grad_weight = torch.zeros_like(weight_VH, dtype=torch.float32) if trains_head else None
        block = _block(hidden_TH, weight_VH, ctx.chunk)
        for rows in _chunks(len(target_T), ctx.chunk):
            logits = _scaled_logits(hidden_TH[rows], weight_VH, temperature_T[rows], block)
            scale = (grad_T[rows] / temperature_T[rows])[:, None]
            grad_logits = logits.sub_(logsum_T[rows, None]).exp_().mul_(-scale)
            grad_logits.scatter_add_(-1, target_T[rows, None], scale)
            if hidden_TH.is_cuda:  # tensor cores need it; on the CPU rounding gains nothing
                grad_logits = grad_logits.to(hidden_TH.dtype)
            grad_hidden[rows] = float32_product(grad_logits, weight_VH)
            if grad_weight is not None:
                _add_product(grad_weight, grad_logits.T, hidden_TH[rows])
            del logits, grad_logits
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight_VH.dtype), None, None, None, None


def token_logprobs(
    hidden_TH: Tensor,
    weight_VH: Tensor,
    target_T: Tensor,
    temperature_T: Tensor,
    *,
    chunk: int,
    statistics: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """[T] float32 logprob of each target under p = softmax(h W^T / temperature), differentiable in h and W.

    With `statistics` also [T] entropy and [T] self-certainty of p in nats, without gradient. Self-certainty is
    KL(uniform || p) = -log V - mean_v log p_v (Intuitor, arXiv 2505.19590).
    """
    result: tuple[Tensor, Tensor | None, Tensor | None] = ChunkedLogprobs.apply(
        hidden_TH, weight_VH, target_T, temperature_T, chunk, statistics
    )
    return result


def _block(hidden_TH: Tensor, weight_VH: Tensor, chunk: int) -> Tensor | None:
    """[chunk, V] float32 for the logits of each chunk, because new pages cost a CPU time. A GPU's allocator keeps what is freed."""
    if hidden_TH.is_cuda:
        return None
    return hidden_TH.new_empty(min(chunk, len(hidden_TH)), len(weight_VH), dtype=torch.float32)


def _scaled_logits(hidden: Tensor, weight_VH: Tensor, temperature: Tensor, block: Tensor | None) -> Tensor:
    out = None if block is None else block[: len(hidden)]
    return float32_product(hidden, weight_VH.T, out).div_(temperature[:, None])


def float32_product(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """left @ right, summed and returned in float32 for any input type. out: float32 memory for it, on the CPU.

    On the CPU a half-precision `right` is converted a block at a time, because it may be the whole head.
    """
    if left.dtype == right.dtype == torch.float32:
        return torch.mm(left, right, out=out)
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    left = left.float()
    total = left.new_empty(left.shape[0], right.shape[1]) if out is None else out
    total.zero_()
    inner, columns = right.shape
    if columns > inner:
        for part in _chunks(columns, max(1, FLOAT32_BLOCK // inner)):
            total[:, part] = left @ right[:, part].float()
    else:
        for part in _chunks(inner, max(1, FLOAT32_BLOCK // columns)):
            total.addmm_(left[:, part], right[part].float())
    return total


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in float32. total has a row for each token of the vocabulary, so no second one is made."""
    if not right.is_cuda:
        total.addmm_(left, right.float())
        return
    for part in _chunks(len(total), max(1, FLOAT32_BLOCK // total.shape[1])):
        total[part] += float32_product(left[part], right)


def _chunks(num: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, num)) for start in range(0, num, size)]
