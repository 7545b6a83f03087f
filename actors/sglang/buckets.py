"""Cuts weights into buckets of whole tensors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

ALIGNMENT = 16
"""Bytes; a multiple of the size of every type."""


def in_buckets(tensors: Mapping[str, Tensor], bucket_bytes: int) -> list[dict[str, Tensor]]:
    """Consecutive whole tensors, at most bucket_bytes per bucket; a larger tensor has a bucket of its own."""
    buckets: list[dict[str, Tensor]] = []
    room = 0
    for name, tensor in tensors.items():
        if not buckets or padded_bytes(tensor) > room:
            buckets.append({})
            room = bucket_bytes
        buckets[-1][name] = tensor
        room -= padded_bytes(tensor)
    return buckets


def padded_bytes(tensor: Tensor) -> int:
    """Bytes up to where the next tensor begins."""
    return -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
