"""Attention over packed rows: a token sees the earlier tokens of its prompt and of its own completion, without a mask of all pairs.

Each prompt and each completion is a causal segment by itself; what the completions see of their prompt is a second, rectangular part.
The two parts are merged by their log-sum-exp, and the backward pass of each part gets the merged output and log-sum-exp, as in ring
attention (arXiv 2310.01889): the result is that of one softmax over both. Memory is linear in tokens, and the prompt is shared.

A layer with a window, or a type that the kernels do not take, goes block by block over the queries of each segment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from corewarding.learner.objective.layout import Layout, Segment
from corewarding.weights.architectures import windows

NAME = "shared_prefix"
"""Under this name transformers knows this attention."""
QUERY_BLOCK = 256
"""Queries of one block, where a mask is needed."""
PROMPT_QUERIES = 4096
"""Completion tokens that look at their prompt at one time, on a CPU."""
_aten = torch.ops.aten


def use_packed_attention(model: Any) -> None:
    """Gives a transformers model this attention. A forward without a PackedMask stays that of `sdpa`."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


class PackedMask(Tensor):
    """Stands in the place of a mask and carries the layout of the rows: transformers hands a mask of four dimensions on as it is."""

    rows: Layout

    @staticmethod
    def of(layout: Layout) -> PackedMask:
        mask = torch.empty(0, 1, 1, 1, dtype=torch.bool, device=layout.segment_bounds.device).as_subclass(PackedMask)
        mask.rows = layout
        return mask


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """As transformers' attention functions: [R, H, C, D] in, [R, C, H, D] out."""
    if not isinstance(attention_mask, PackedMask):
        output: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)[
            0
        ]
        return output, None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = _window_of(module, query.shape[2])
    return packed_attention(query, key, value, attention_mask.rows, window=window, scale=scale), None


@torch.compiler.disable
def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, *, window: int | None, scale: float
) -> Tensor:
    """[R, C, H, D] from queries [R, H, C, D], and keys and values [R, K, C, D], H a multiple of K.

    window: a token sees the last `window` tokens, itself included, counted by position.
    """
    if window is None and (not query.is_cuda or _flash_takes(query)):
        merged: Tensor = Merged.apply(query, key, value, layout, scale)
        return merged
    return _blocked(query, key, value, layout, window, scale)


def _window_of(module: nn.Module, length: int) -> int | None:
    """The window of the layer that this module belongs to, if a row of `length` tokens can exceed it."""
    sizes = windows(module.config)
    kinds = getattr(module.config, "layer_types", None)
    size = sizes[kinds[module.layer_idx]] if kinds else next(iter(sizes.values()))  # type: ignore[index]
    return size if size is not None and size < length else None


def _flash_takes(query: Tensor) -> bool:
    """Whether the GPU's flash kernel computes this."""
    if not torch.backends.cuda.is_flash_attention_available() or torch.cuda.get_device_capability(query.device) < (
        8,
        0,
    ):
        return False
    return query.dtype in (torch.bfloat16, torch.float16) and query.shape[-1] % 8 == 0 and query.shape[-1] <= 256


class Merged(torch.autograd.Function):
    """Both parts of the attention in one. The kernels work on T = R * C tokens: [T, H, D], and the log-sum-exp [T, H]."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:  # type: ignore[override]
        ctx.kernels = CudaKernels(layout, scale) if query.is_cuda else CpuKernels(layout, scale)
        flat = tuple(map(_flat, (query, key, value)))
        output, logsumexp = ctx.kernels.forward(*flat)
        ctx.save_for_backward(*flat, output, logsumexp)
        whole: Tensor = output.unflatten(0, (query.shape[0], query.shape[2]))
        return whole

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:  # type: ignore[override]
        grads = ctx.kernels.backward(grad.flatten(0, 1).contiguous(), ctx.saved_tensors)
        query, key, value = (part.unflatten(0, grad.shape[:2]).transpose(1, 2) for part in grads)
        return query, key, value, None, None


@dataclass(frozen=True, slots=True)
class CpuKernels:
    """Each long segment in a call of its own, without a copy; short segments of similar length in one call. Then each prompt with a
    part of its completions at a time: numbers for all of a long row would be new memory in each call."""

    layout: Layout
    scale: float

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        output, logsumexp = torch.empty_like(q), q.new_empty(q.shape[:2], dtype=torch.float32)
        for at, is_own, own in self.layout.padded:
            found, sums = self._call(q[at], k[at], v[at], True)
            output[own], logsumexp[own] = found[is_own], sums[is_own]
        for long in self.layout.long:
            found, sums = self._call(q[None, long], k[None, long], v[None, long], True)
            output[long], logsumexp[long] = found[0], sums[0]
        for queries, keys in self._prompts():
            prompt, sums = self._call(q[None, queries], k[None, keys], v[None, keys], False)
            _merge(output[queries], logsumexp[queries], prompt[0], sums[0])
        return output, logsumexp

    def _call(self, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
        """[N, L, H, D] and [N, L, H]."""
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        output, sums = _aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=self.scale)
        return output.transpose(1, 2), sums.transpose(1, 2)

    def backward(self, grad: Tensor, saved: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, output, logsumexp = saved
        grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for at, is_own, own in self.layout.padded:
            own_grad = grad[at] * is_own[..., None, None]
            found = self._back(own_grad, q[at], k[at], v[at], output[at], logsumexp[at], True)
            for whole, part in zip(grads, found, strict=True):
                whole[own] = part[is_own]
        for long in self.layout.long:
            seen = grad[None, long], q[None, long], k[None, long], v[None, long]
            found = self._back(*seen, output[None, long], logsumexp[None, long], True)
            for whole, part in zip(grads, found, strict=True):
                whole[long] = part[0]
        for queries, keys in self._prompts():
            seen = grad[None, queries], q[None, queries], k[None, keys], v[None, keys]
            found = self._back(*seen, output[None, queries], logsumexp[None, queries], False)
            for whole, place, part in zip(grads, (queries, keys, keys), found, strict=True):
                whole[place] += part[0]
        return grads

    def _back(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, output: Tensor, sums: Tensor, causal: bool
    ) -> tuple[Tensor, ...]:
        parts = [part.transpose(1, 2) for part in (grad, q, k, v, output, sums)]
        found = _aten._scaled_dot_product_flash_attention_for_cpu_backward(*parts, 0.0, causal, scale=self.scale)
        return tuple(one.transpose(1, 2) for one in found)

    def _prompts(self) -> Iterator[tuple[slice, slice]]:
        """Of each tree some completion tokens, and the prompt that they see."""
        for row, begin, start, end in self.layout.trees:
            first = row * self.layout.length
            for low in range(start, end, PROMPT_QUERIES):
                yield slice(first + low, first + min(low + PROMPT_QUERIES, end)), slice(first + begin, first + start)


@dataclass(frozen=True, slots=True)
class CudaKernels:
    """All segments in one call of the flash kernel for sequences of several lengths, and all prompts in another."""

    layout: Layout
    scale: float

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        output, logsumexp = self._call(q, k, v, *self._own())
        if self.layout.trees:
            queries, keys = self.layout.completion_index, self.layout.prompt_index
            merged, sums = output[queries], logsumexp[queries]
            _merge(merged, sums, *self._call(q[queries], k[keys], v[keys], *self._prompts()))
            output[queries], logsumexp[queries] = merged, sums
        return output, logsumexp

    def _call(self, q: Tensor, k: Tensor, v: Tensor, *bounds: Any) -> tuple[Tensor, Tensor]:
        *lengths, causal = bounds
        found = _aten._flash_attention_forward(q, k, v, *lengths, 0.0, causal, False, scale=self.scale)
        return found[0], found[1].transpose(0, 1)

    def backward(self, grad: Tensor, saved: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, output, logsumexp = saved
        grad_q, grad_k, grad_v = self._back(grad, q, k, v, output, logsumexp, *self._own())
        if self.layout.trees:
            queries, keys = self.layout.completion_index, self.layout.prompt_index
            parts = grad[queries], q[queries], k[keys], v[keys], output[queries], logsumexp[queries]
            more_q, more_k, more_v = self._back(*parts, *self._prompts())
            grad_q.index_add_(0, queries, more_q)
            grad_k.index_add_(0, keys, more_k)
            grad_v.index_add_(0, keys, more_v)
        return grad_q, grad_k, grad_v

    def _back(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, output: Tensor, sums: Tensor, *bounds: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        *lengths, causal = bounds
        dropout = torch.zeros(2, dtype=torch.uint64, device=q.device), q.new_empty(0)  # its state; there is none
        sums = sums.transpose(0, 1).contiguous()
        found: tuple[Tensor, Tensor, Tensor] = _aten._flash_attention_backward(
            grad, q, k, v, output, sums, *lengths, 0.0, causal, *dropout, scale=self.scale
        )
        return found

    def _own(self) -> tuple[Tensor, Tensor, int, int, bool]:
        bounds, longest = self.layout.segment_bounds, self.layout.longest
        return bounds, bounds, longest, longest, True

    def _prompts(self) -> tuple[Tensor, Tensor, int, int, bool]:
        its = self.layout
        return its.completion_bounds, its.prompt_bounds, its.longest_completions, its.longest, False


def _flat(part: Tensor) -> Tensor:
    """[R, H, C, D] as [R * C, H, D]."""
    return part.transpose(1, 2).flatten(0, 1).contiguous()


def _merge(output: Tensor, logsumexp: Tensor, other: Tensor, other_logsumexp: Tensor) -> None:
    """In place: the attention over two sets of keys, [L, H, D] and [L, H], from that over each."""
    total = torch.logaddexp(logsumexp, other_logsumexp)
    share = (logsumexp - total).exp_()[..., None]
    output.copy_(output * share + other * (1 - share))  # in float32, rounded once
    logsumexp.copy_(total)


def _blocked(query: Tensor, key: Tensor, value: Tensor, layout: Layout, window: int | None, scale: float) -> Tensor:
    """By blocks of queries, each with a mask over the keys that they may see."""
    pieces = [
        block
        for segment in layout.segments
        for block in _blocks(query[segment.row], key[segment.row], value[segment.row], segment, window, scale)
    ]
    flat = torch.cat(pieces, dim=2)[0].transpose(0, 1)  # the segments are in order and leave no gap
    return flat.unflatten(0, (query.shape[0], query.shape[2]))


def _blocks(
    query: Tensor, key: Tensor, value: Tensor, segment: Segment, window: int | None, scale: float
) -> Iterator[Tensor]:
    """[1, H, L, D] of each block of a segment, from [H, C, D] of its row."""
    query, key, value = query[None], key[None], value[None]
    start, end, prompt = segment.start, segment.end, slice(segment.prompt_start, segment.prompt_end)
    keys, values = (torch.cat([part[:, :, prompt], part[:, :, start:end]], dim=2) for part in (key, value))
    before = segment.prompt_end - segment.prompt_start
    for begin in range(0, end - start, QUERY_BLOCK):
        stop = min(begin + QUERY_BLOCK, end - start)
        first = 0 if window is None else max(0, before + begin - window + 1)
        at = torch.arange(before + begin, before + stop, device=query.device)[:, None]
        seen = torch.arange(first, before + stop, device=query.device)[None]
        mask = seen <= at if window is None else (seen <= at) & (at - seen < window)
        queries = query[:, :, start + begin : start + stop]
        k, v = (part[:, :, first : before + stop] for part in (keys, values))
        grouped = queries.shape[1] != k.shape[1]
        yield scaled_dot_product_attention(queries, k, v, attn_mask=mask, scale=scale, enable_gqa=grouped)
