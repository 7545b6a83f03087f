"""Messages that precede a transfer of weights: where the members meet, and which tensors follow."""

from __future__ import annotations

from dataclasses import dataclass, field

from corewarding.dataflow.ids import Channel, Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendezvous:
    """Where the members of one weight group meet. Rank 0 is the sending rank of the learner; it serves the store."""

    channel: Channel
    group_epoch: int
    host: str
    port: int
    world_size: int
    backend: str  # "gloo", "nccl" or "ipc"
    timeout_s: float
    key: bytes = field(repr=False)  # shared by the members only; rank 0 makes one for each group


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor of a transfer. The stream is the bytes of all tensors, in the order of the manifest."""

    name: str  # the checkpoint's
    shape: tuple[int, ...]
    dtype: str  # "float32", "bfloat16", "float16"
    num_bytes: int
    checksum: int | None  # of the bytes sent; None if this transfer has no checksums


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightManifest:
    """Precedes every transfer. The receiver must consume exactly these tensors."""

    channel: Channel
    version: Version
    group_epoch: int  # of the process group that carries it; a rebuilt group has a higher one
    bucket_bytes: int
    tensors: tuple[TensorSpec, ...]

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(spec.num_bytes for spec in self.tensors)
