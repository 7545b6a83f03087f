"""The sizes of a model that memory and time follow from, without its weights. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

Rows = tuple[int, int]
"""A parameter as FSDP cuts it: length of the first axis, and elements behind each of its entries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A decoder. FSDP gathers its parameters in groups: the embedding, each layer, the head, and the rest."""

    groups: tuple[tuple[Rows, ...], ...]  # in the order of a forward pass; a tied head is in the embedding's
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    num_active: int  # parameters that one token passes through
    stored_bytes: int  # of one element in the model's folder
    linear: tuple[tuple[str, int, int], ...] = ()  # linear layers of the decoder's layers: name, outputs, inputs

    @property
    def num_parameters(self) -> int:
        """Tied ones once."""
        return self.elements(1)

    def elements(self, ranks: int) -> int:
        """Elements on the fullest of `ranks`: FSDP2 cuts the first axis in parts of equal length, the last ones are padded."""
        return sum(-(-rows // ranks) * columns for group in self.groups for rows, columns in group)

    def group_elements(self) -> tuple[int, ...]:
        """Elements of each group, whole."""
        return tuple(sum(rows * columns for rows, columns in group) for group in self.groups)

    def kv_token_bytes(self, element: float) -> float:
        """Keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * element


def shape_of(model: Any) -> ModelShape:
    """model: transformers' causal language model, on any device."""
    config = model.config.get_text_config()
    decoder, embedding, head = model.model, model.get_input_embeddings(), model.get_output_embeddings()
    modules = [embedding, *decoder.layers, head]
    seen: set[int] = set()

    def fresh(parameters: Any) -> tuple[Rows, ...]:
        found = [p for p in parameters if id(p) not in seen and not seen.add(id(p))]  # type: ignore[func-returns-value]
        return tuple((p.shape[0], math.prod(p.shape[1:])) for p in found)

    groups = [fresh(module.parameters()) for module in modules]
    groups.append(fresh(model.parameters()))
    heads = config.num_attention_heads
    return ModelShape(
        groups=tuple(group for group in groups if group),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocab=config.vocab_size,
        num_active=_active(model, config),
        linear=tuple(
            (name, its.out_features, its.in_features)
            for name, its in decoder.layers.named_modules()
            if hasattr(its, "in_features")
        ),
        stored_bytes=4 if str(getattr(config, "dtype", None)).endswith("float32") else 2,
    )


def _active(model: Any, config: Any) -> int:
    """Of experts only those that a router chooses for a token."""
    experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None) or 1
    chosen = getattr(config, "num_experts_per_tok", None) or 1
    total = 0
    for name, parameter in model.named_parameters():
        total += parameter.numel() * chosen // experts if ".experts." in name else parameter.numel()
    return total
