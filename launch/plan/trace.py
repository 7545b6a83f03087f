"""Bytes of activations, measured on the learner's own model without memory: torch's meta device keeps shapes and computes nothing.

The model runs forward and backward while every tensor is counted from its making to its end. So the number follows the architecture,
the number format, checkpointing and the head as they are in the code.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface, AutoModelForCausalLM
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from corewarding.learner.attention import PackedMask
from corewarding.learner.model import PolicyModel
from corewarding.learner.objective.layout import Layout
from corewarding.learner.objective.logprobs import token_logprobs
from corewarding.weights.model_config import without_dropout

ATTENTION = "planned"
"""Under this name transformers knows the attention of a plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """Bytes beside parameters and gathered weights, on one rank for one micro-batch."""

    kept: int  # between forward and backward
    layer: int  # beside what is kept, at the worst moment of the layers' forward and backward
    head: int  # beside what is kept, at the worst moment of the head's forward and backward
    without_gradient: int  # at the worst moment of a forward pass without gradient


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is active, until they are freed."""

    def __init__(self, device: str = "meta") -> None:
        """device: type of the device whose tensors count."""
        super().__init__()
        self._device = device
        self.now = self.peak = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor) and one.device.type == self._device:
                self._made(one)
        return result

    def owns(self, tensor: Tensor) -> None:
        """This tensor was there before and is not counted."""
        self._known[tensor.untyped_storage()] = None

    def _made(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._known:
            size = storage.nbytes()
            self._known[storage] = weakref.finalize(storage, self._freed, size)
            self.now += size
            self.peak = max(self.peak, self.now)

    def _freed(self, size: int) -> None:
        self.now -= size


def activations(config: Any, *, dtype: str, tokens: int, chunk: int, checkpointing: bool) -> Activations | None:
    """Of a micro-batch of `tokens` tokens, each of which has a logprob. None for a model that cannot be run without values.

    config: transformers' of the model. chunk: learner.logprob_chunk_tokens. Two and three layers are run: each further one keeps as
    much as the third.
    """
    element = getattr(torch, dtype)
    try:
        two, three = (
            _decoder(_policy(config, element, chunk, checkpointing, layers=layers), tokens) for layers in (2, 3)
        )
    except (NotImplementedError, RuntimeError):  # a shape depends on values
        return None
    policy = _policy(config, element, chunk, checkpointing, layers=1)
    hidden = torch.empty(tokens, policy.head.weight.shape[1], dtype=element, device="meta")
    with torch.no_grad():
        _, scored = _run(policy, lambda: _logprobs(policy, hidden, chunk, statistics=False), backward=False)
    _, head = _run(policy, lambda: _logprobs(policy, hidden.requires_grad_(), chunk, statistics=True))
    return Activations(
        kept=two.kept + (config.get_text_config().num_hidden_layers - 2) * (three.kept - two.kept),
        layer=three.layer,
        head=head,
        without_gradient=max(three.without_gradient, scored + hidden.untyped_storage().nbytes()),
    )


def _decoder(policy: PolicyModel, tokens: int) -> Activations:
    with torch.no_grad():
        _, without = _run(policy, lambda: _decoded(policy, tokens), backward=False)
    kept, peak = _run(policy, lambda: _decoded(policy, tokens))
    return Activations(kept=kept, layer=peak - kept, head=0, without_gradient=without)


def _policy(config: Any, element: torch.dtype, chunk: int, checkpointing: bool, *, layers: int) -> PolicyModel:
    """The learner's model with its first `layers` layers."""
    config = without_dropout(copy.deepcopy(config))
    for key, value in [*vars(config).items()]:
        if isinstance(value, list) and len(value) == config.num_hidden_layers:  # one entry for each layer
            setattr(config, key, [value[index % len(value)] for index in range(layers)])
    config.num_hidden_layers = layers
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=element, attn_implementation="sdpa", trust_remote_code=False
        )
    model.config.use_cache = False
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    policy = PolicyModel(model, chunk_tokens=chunk)
    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)
    return policy


def _run(policy: PolicyModel, forward: Callable[[], Tensor], *, backward: bool = True) -> tuple[int, int]:
    """(bytes alive after the forward pass, most bytes at one time)."""
    hooks = [p.register_post_accumulate_grad_hook(_drop) for p in policy.parameters()] if backward else []
    live = Live()
    for tensor in (*policy.parameters(), *policy.buffers()):
        live.owns(tensor)
    with live:
        result = forward()
        kept = live.now
        if backward:
            result.backward(torch.empty_like(result))
    for hook in hooks:
        hook.remove()
    return kept, live.peak


def _drop(parameter: Tensor) -> None:
    """FSDP reduces a gradient as soon as it is there; its memory is counted with the group's."""
    parameter.grad = None


def _decoded(policy: PolicyModel, tokens: int) -> Tensor:
    ids = torch.zeros(1, tokens, dtype=torch.int64, device="meta")
    mask = PackedMask.of(Layout.of([[(tokens, [])]], tokens))
    output: Tensor = policy.model.model(  # type: ignore[union-attr, operator]
        input_ids=ids,
        position_ids=ids,
        attention_mask=mask if len(policy.windows) == 1 else dict.fromkeys(policy.windows, mask),
        use_cache=False,
    ).last_hidden_state
    return output


def _logprobs(policy: PolicyModel, hidden: Tensor, chunk: int, *, statistics: bool) -> Tensor:
    target = torch.zeros(len(hidden), dtype=torch.int64, device="meta")
    temperature = torch.ones(len(hidden), device="meta")
    return token_logprobs(hidden, policy.head.weight, target, temperature, chunk=chunk, statistics=statistics)[0]


class _Planned(torch.autograd.Function):
    """Keeps what attention over packed rows keeps: queries, keys, values, output, and a log-sum-exp of each head."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # type: ignore[override]
        flat = tuple(part.transpose(1, 2).flatten(0, 1).contiguous() for part in (query, key, value))
        output = torch.empty_like(flat[0])
        ctx.save_for_backward(*flat, output, flat[0].new_empty(flat[0].shape[:2], dtype=torch.float32))
        ctx.shape = query.shape
        whole: Tensor = output.unflatten(0, (query.shape[0], query.shape[2]))
        return whole

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        query, key, value, _, _ = ctx.saved_tensors
        rows, _, columns, _ = ctx.shape
        found = (torch.empty_like(part).unflatten(0, (rows, columns)).transpose(1, 2) for part in (query, key, value))
        return tuple(found)  # type: ignore[return-value]


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **_: Any
) -> tuple[Tensor, None]:
    """As transformers' attention functions: [R, H, C, D] in, [R, C, H, D] out."""
    output: Tensor = _Planned.apply(query, key, value)
    return output, None
