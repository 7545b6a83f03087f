"""Attention without a mask of all pairs is attention with one: values and gradients, for every kind of row and both paths."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from corewarding.learner import attention
from corewarding.learner.attention import CudaKernels, packed_attention
from corewarding.learner.objective import layout as layouts
from corewarding.learner.objective.layout import Layout
from tests.packed_rows import DIM, HEADS, KEY_HEADS, ROWS, mask_of


def with_gradients(output: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, output.numel()).view_as(output)
    return [output.detach(), *torch.autograd.grad((output.float() * weights).sum(), inputs)]


@pytest.mark.parametrize("window", [None, 4, 300])
@pytest.mark.parametrize("name", ROWS)
def test_it_is_attention_with_a_mask(name: str, window: int | None) -> None:
    rows, length = ROWS[name], 8 * (1 + max(sum(p + sum(c) for p, c in row) for row in ROWS[name]) // 8)
    torch.manual_seed(0)
    inputs = [torch.randn(len(rows), heads, length, DIM, requires_grad=True) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    expected = scaled_dot_product_attention(
        *inputs, attn_mask=mask_of(rows, length, window), scale=0.3, enable_gqa=True
    ).transpose(1, 2)
    found = packed_attention(*inputs, Layout.of(rows, length), window=window, scale=0.3)
    for ours, theirs in zip(with_gradients(found, inputs), with_gradients(expected, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ROWS)
def test_it_is_the_same_in_many_small_calls(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long segments and long trees are computed; here every segment of 4 tokens is long, and 5 look at a prompt at one time."""
    monkeypatch.setattr(layouts, "LONG", 4)
    monkeypatch.setattr(attention, "PROMPT_QUERIES", 5)
    test_it_is_attention_with_a_mask(name, None)


def test_in_bfloat16_it_rounds_as_attention_with_a_mask_does() -> None:
    rows = ROWS["two rows"]
    torch.manual_seed(0)
    exact = [torch.randn(2, heads, 40, DIM, dtype=torch.float64) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    mask, layout = mask_of(rows, 40, None), Layout.of(rows, 40)
    errors = []
    for kind in ("exact", "packed", "masked"):
        inputs = [part.to(torch.float64 if kind == "exact" else torch.bfloat16).requires_grad_() for part in exact]
        if kind == "packed":
            output = packed_attention(*inputs, layout, window=None, scale=0.3)
        else:
            output = scaled_dot_product_attention(*inputs, attn_mask=mask, scale=0.3, enable_gqa=True).transpose(1, 2)
        values = with_gradients(output, inputs)
        if kind == "exact":
            reference = values
        else:
            errors.append([float((a.double() - b).norm() / b.norm()) for a, b in zip(values, reference, strict=True)])
    assert all(ours < 1.5 * theirs for ours, theirs in zip(*errors, strict=True)), errors
    assert max(errors[0]) < 0.01


def test_memory_is_linear_in_tokens() -> None:
    """Every tensor of a layout has as many elements as there are tokens, or as segments."""
    sizes = []
    for num in (1, 4):
        layout = Layout.of([[(100, [50] * 8)] * num], 500 * num)
        tensors = [getattr(layout, name) for name in layout.__dataclass_fields__]
        tensors = [part for part in tensors if isinstance(part, Tensor)] + [p for one in layout.padded for p in one]
        sizes.append(sum(part.numel() for part in tensors))
    assert sizes[1] <= 4.1 * sizes[0]


@pytest.mark.parametrize("name", ROWS)
def test_the_calls_for_a_gpu_have_the_shapes_and_arguments_of_its_kernels(name: str) -> None:
    """On torch's meta device, which checks a call without computing it."""
    length = 640
    layout = Layout.of(ROWS[name], length)
    tensors = {key: getattr(layout, key) for key in layout.__dataclass_fields__}
    moved = {key: part.to("meta") if isinstance(part, Tensor) else part for key, part in tensors.items()}
    kernels = CudaKernels(Layout(**moved), 0.3)
    sizes = [(len(ROWS[name]) * length, heads, DIM) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    q, k, v = (torch.empty(size, dtype=torch.bfloat16, device="meta") for size in sizes)
    output, sums = kernels.forward(q, k, v)
    assert (output.shape, sums.shape) == (q.shape, q.shape[:2])
    assert [part.shape for part in kernels.backward(output, (q, k, v, output, sums))] == [q.shape, k.shape, v.shape]
