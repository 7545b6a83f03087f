"""The preallocated KV cache: one row per slot, with the running sequences in the first rows.

It is a transformers Cache. Its layers write each row's new tokens behind that row's own ones and give attention only the rows in use,
cropped to the longest of them, so short sequences do not pay for max_model_len.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import AttentionInterface, PretrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

CROP_MULTIPLE = 16
ATTENTION = "corewarding_grouped"


def grouped_attention(
    module: torch.nn.Module,
    query: Tensor,  # [n, heads, queries, d]
    key: Tensor,  # [n, kv_heads, length, d]
    value: Tensor,
    attention_mask: Tensor | None,  # [n, 1, queries, length] bool over the cache, None in a prefill
    scaling: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention in transformers' calling convention, without repeating keys for grouped heads.

    During decoding, query heads that share a KV head are reshaped as extra queries, so keys are not repeated.
    """
    n, heads, queries, d = query.shape
    kv_heads = key.shape[1]
    if queries == 1 and attention_mask is not None:
        grouped = query.reshape(n, kv_heads, heads // kv_heads, d)
        output = torch.nn.functional.scaled_dot_product_attention(
            grouped, key, value, attn_mask=attention_mask, scale=scaling
        )
        return output.reshape(n, 1, heads, d), None
    output = torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        is_causal=attention_mask is None,
        scale=scaling,
        enable_gqa=heads != kv_heads,
    )
    return output.transpose(1, 2), None


AttentionInterface.register(ATTENTION, grouped_attention)


class SlotLayer(CacheLayerMixin):
    """One layer's keys and values, [slots, kv_heads, max_len, d]."""

    def __init__(self, owner: SlotCache, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self._owner = owner
        self.keys: Tensor = torch.zeros(shape, dtype=dtype, device=device)
        self.values: Tensor = torch.zeros(shape, dtype=dtype, device=device)
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Does nothing: the constructor allocates all memory."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        owner, visible = self._owner, self._owner.visible
        self.keys[owner.rows[:, None], :, owner.positions] = key_states.transpose(1, 2)
        self.values[owner.rows[:, None], :, owner.positions] = value_states.transpose(1, 2)
        if owner.are_first:
            n = len(owner.rows)
            return self.keys[:n, :, :visible], self.values[:n, :, :visible]
        return self.keys[owner.rows, :, :visible], self.values[owner.rows, :, :visible]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._owner.visible, 0

    def get_seq_length(self) -> int:
        return self._owner.visible

    def get_max_length(self) -> int:
        return int(self.keys.shape[2])


class SlotCache(Cache):
    """All layers. `aim` sets where the next forward pass writes its tokens."""

    def __init__(
        self, config: PretrainedConfig, *, slots: int, max_len: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (slots, config.num_key_value_heads, max_len, head_dim)
        self._all_rows = torch.arange(slots, device=device)
        self._columns = torch.arange(max_len, device=device)
        self.rows = self._all_rows[:0]  # [n]
        self.positions = self._all_rows[:0, None]  # [n, queries]
        self.are_first = True  # whether `rows` are the first n
        self.visible = 0  # columns that attention sees
        self._layers = [SlotLayer(self, shape, dtype, device) for _ in range(config.num_hidden_layers)]
        super().__init__(layers=list(self._layers))

    @property
    def max_len(self) -> int:
        """Tokens that fit in a row."""
        return len(self._columns)

    def aim(self, positions: Tensor, longest: int, rows: Tensor | None = None) -> Tensor:
        """Makes the next forward pass write its tokens of rows[i] at positions[i]; returns its [n, 1, queries, visible] mask.

        positions: [n, queries]. longest: the largest of them. rows: [n]; None: the first n.
        """
        self.are_first = rows is None
        self.rows, self.positions = self._all_rows[: len(positions)] if rows is None else rows, positions
        self.visible = self.columns(longest)
        return (self._columns[: self.visible] <= positions[:, :, None])[:, None]

    def columns(self, longest: int) -> int:
        """How many columns attention sees if `longest` is the largest position."""
        return min(-(-(longest + 1) // CROP_MULTIPLE) * CROP_MULTIPLE, self.max_len)

    def fill(self, rows: Tensor, prefilled: DynamicCache, sources: Tensor) -> None:
        """Copies whole prefixes: row rows[i] gets the keys and values of `prefilled`'s row sources[i]."""
        for layer, other in zip(self._layers, prefilled.layers, strict=True):
            assert isinstance(other, CacheLayerMixin)
            assert other.keys is not None
            assert other.values is not None
            length = other.keys.shape[2]
            layer.keys[rows, :, :length] = other.keys[sources]
            layer.values[rows, :, :length] = other.values[sources]

    def copy(self, sources: Tensor, targets: Tensor, length: int) -> None:
        """Copies the first `length` tokens of each row of `sources` to the row of `targets` in its place. No row may be in both."""
        for layer in self._layers:
            layer.keys[targets, :, :length] = layer.keys[sources, :, :length]
            layer.values[targets, :, :length] = layer.values[sources, :, :length]
