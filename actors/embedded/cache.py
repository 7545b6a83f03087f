"""The preallocated KV cache: one row per slot, the running sequences always in the first rows.

A transformers Cache whose layers write each row's new token at that row's own length and show attention only the rows in use,
cropped to the longest of them, so short sequences never pay for max_model_len.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import AttentionInterface, PretrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin

CROP_MULTIPLE = 16
ATTENTION = "corewarding_grouped"


def grouped_attention(
    module: torch.nn.Module,
    query: Tensor,  # [n, heads, queries, d]
    key: Tensor,  # [n, kv_heads, length, d]
    value: Tensor,
    attention_mask: Tensor | None,  # [n, 1, 1, length] bool while decoding, None in a prefill
    scaling: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention in transformers' calling convention, without repeating keys for grouped heads.

    While decoding, the heads that share a key head are treated as its queries: same mask, no copy of the cache.
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
        query, key, value, is_causal=True, scale=scaling, enable_gqa=heads != kv_heads
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
        """Nothing: all memory is taken at start."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        owner = self._owner
        self.keys[owner.rows, :, owner.positions] = key_states[:, :, 0]
        self.values[owner.rows, :, owner.positions] = value_states[:, :, 0]
        n = len(owner.rows)
        return self.keys[:n, :, : owner.crop], self.values[:n, :, : owner.crop]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._owner.crop, 0

    def get_seq_length(self) -> int:
        return self._owner.crop

    def get_max_length(self) -> int:
        return int(self.keys.shape[2])


class SlotCache(Cache):
    """All layers. `aim` says where the next step's tokens go."""

    def __init__(
        self, config: PretrainedConfig, *, slots: int, max_len: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (slots, config.num_key_value_heads, max_len, head_dim)
        self._all_rows = torch.arange(slots, device=device)
        self._columns = torch.arange(max_len, device=device)
        self.rows = self._all_rows[:0]
        self.positions = self._all_rows[:0]
        self.crop = 0
        super().__init__(layers=[SlotLayer(self, shape, dtype, device) for _ in range(config.num_hidden_layers)])

    @property
    def max_len(self) -> int:
        """Tokens that a row can hold."""
        return len(self._columns)

    def aim(self, positions: Tensor, longest: int) -> Tensor:
        """The next step writes row i's token at positions[i]; returns the [n, 1, 1, crop] mask of what it may see."""
        self.rows, self.positions = self._all_rows[: len(positions)], positions
        self.crop = min(-(-(longest + 1) // CROP_MULTIPLE) * CROP_MULTIPLE, self.max_len)
        return (self._columns[: self.crop] <= positions[:, None])[:, None, None]

    def fill(self, rows: Tensor, prefilled: Cache, sources: Tensor) -> None:
        """Copies whole prefixes: row rows[i] gets the keys and values that `prefilled` has in its row sources[i]."""
        for mine, theirs in zip(self.layers, prefilled.layers, strict=True):
            length = theirs.keys.shape[2]
            mine.keys[rows, :, :length] = theirs.keys[sources]
            mine.values[rows, :, :length] = theirs.values[sources]

    def move(self, source: int, target: int, length: int) -> None:
        """Row `source` takes the place of row `target`."""
        for layer in self.layers:
            layer.keys[target, :, :length] = layer.keys[source, :, :length]
            layer.values[target, :, :length] = layer.values[source, :, :length]
