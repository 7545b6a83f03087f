"""The keys of adapters. Imports no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from corewarding.dataflow.settings import Settings, Unit, Whole

ALL_LINEAR = "all-linear"
"""The target that stands for every linear layer of the decoder's layers."""


class LoraSettings(Settings):
    """Adapters of low rank, which are trained instead of the model's weights."""

    rank: Annotated[int, Unit("columns")] | None = Field(None, ge=1, le=10**5)
    """Columns of an adapter's inner matrices: each target W gets W + alpha / rank * B A, of which only A and B are trained (LoRA).
    None: no adapters, all weights are trained. Needs peft: `pip install 'corewarding[lora]'`."""
    alpha: Whole = Field(32, ge=1)
    """Numerator of the factor alpha / rank by which an adapter counts."""
    targets: tuple[Annotated[str, Field(min_length=1)], ...] = Field((ALL_LINEAR,), min_length=1)
    """Linear layers that get an adapter, by the end of their names, such as q_proj or self_attn.q_proj; all-linear: every linear layer
    in the decoder's layers."""

    @property
    def is_on(self) -> bool:
        return self.rank is not None

    def takes(self, name: str) -> bool:
        """Whether the linear layer of this name in the decoder's layers gets an adapter."""
        return any(target == ALL_LINEAR or f".{name}".endswith(f".{target}") for target in self.targets)
