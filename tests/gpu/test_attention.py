"""Attention over packed rows on the GPU: the flash kernel for the types that it takes, blocks for the others."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from corewarding.learner.attention import packed_attention
from corewarding.learner.objective.layout import Layout
from tests.packed_rows import DIM, HEADS, KEY_HEADS, ROWS, mask_of


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("name", ROWS)
def test_it_is_attention_with_a_mask(name: str, window: int | None, dtype: torch.dtype, device: str) -> None:
    rows = ROWS[name]
    length = 8 * (1 + max(sum(p + sum(c) for p, c in row) for row in rows) // 8)
    tensors = {key: getattr(Layout.of(rows, length), key) for key in Layout.__dataclass_fields__}
    layout = Layout(**{key: one.to(device) if isinstance(one, torch.Tensor) else one for key, one in tensors.items()})
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(len(rows), heads, length, DIM, generator=generator) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    weights = torch.linspace(-1, 1, parts[0].numel()).view(len(rows), length, HEADS, DIM).to(device)
    found: list[list[torch.Tensor]] = []
    for kind in (dtype, torch.float64):
        inputs = [part.to(device, dtype).to(kind).requires_grad_() for part in parts]
        if kind == dtype:
            output = packed_attention(*inputs, layout, window=window, scale=0.3)
        else:
            mask = mask_of(rows, length, window).to(device)
            output = scaled_dot_product_attention(*inputs, attn_mask=mask, scale=0.3, enable_gqa=True).transpose(1, 2)
        found.append([output.detach(), *torch.autograd.grad((output.double() * weights).sum(), inputs)])
    bound = 1e-5 if dtype == torch.float32 else 0.01
    for ours, exact in zip(*found, strict=True):
        assert float((ours.double() - exact).norm() / exact.norm()) < bound
