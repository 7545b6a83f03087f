"""What is said about weights on their way to engines: where to meet, and what will be sent."""

from __future__ import annotations

from dataclasses import dataclass

from corewarding.dataflow.ids import Channel, Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendezvous:
    """Where the members of one weight group meet. Rank 0 is the learner's sending rank and serves the store."""

    channel: Channel
    group_epoch: int
    host: str
    port: int
    world_size: int
    backend: str  # "gloo", "nccl" or "ipc"
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor on the wire. The stream of a transfer is the tensors' bytes in manifest order."""

    name: str  # Hugging Face parameter name
    shape: tuple[int, ...]
    dtype: str  # "float32", "bfloat16", "float16"
    num_bytes: int
    checksum: int | None  # transport.checksum of the wire bytes; None when this transfer carries none


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightManifest:
    """Goes ahead of every transfer; the receiver must consume exactly it."""

    channel: Channel
    version: Version
    group_epoch: int  # of the process group it travels on; a rebuilt group has a higher one
    bucket_bytes: int
    tensors: tuple[TensorSpec, ...]

    @property
    def total_bytes(self) -> int:
        return sum(spec.num_bytes for spec in self.tensors)
