"""The stream of a transfer: the tensors' bytes in manifest order, cut into buckets of bucket_bytes.

A tensor may span buckets and a bucket may hold many tensors. Sender and receiver cut by the same `plan`, so only bytes are sent. The
receiver consumes exactly what the manifest announced, or raises.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from corewarding.dataflow.weights import TensorSpec, WeightManifest
from corewarding.weights.group import TransportError, WeightGroup, Work

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_INTEGER_OF_SIZE = {2: torch.int16, 4: torch.int32}
# Elements whose checksum is computed at once, with 64-bit temporaries; on the CPU they fit a core's cache.
_CPU_CHUNK, _GPU_CHUNK = 1 << 17, 1 << 22
_ALIGNMENT = 64  # bytes of a cache line
_MIX_A, _MIX_B = 0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9  # odd


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shard:
    """The part of one full tensor that a rank holds: a range of the flat tensor, possibly empty."""

    name: str
    shape: tuple[int, ...]  # of the full tensor
    start: int  # first element held here, in the flat full tensor
    local: Tensor  # [n] flat and contiguous, of any float dtype

    def __post_init__(self) -> None:
        if self.local.ndim != 1 or not self.local.is_contiguous():
            raise TransportError(f"shard of {self.name} must be flat and contiguous, got {tuple(self.local.shape)}")
        if self.start < 0 or self.stop > math.prod(self.shape):
            raise TransportError(
                f"shard of {self.name} covers {self.start}..{self.stop} of {math.prod(self.shape)} elements"
            )

    @property
    def stop(self) -> int:
        return self.start + self.local.numel()

    @property
    def device(self) -> torch.device:
        """Of what is read: of parts and checksums."""
        return self.local.device

    def part(self, start: int, count: int) -> Tensor:
        """[count] elements start, start + 1, ... of the full tensor as they are sent; this shard holds them."""
        return self.local[start - self.start : start - self.start + count]

    def write(self, start: int, into: Tensor) -> None:
        """Casts elements start, start + 1, ... of the full tensor into the flat `into`."""
        into.copy_(self.part(start, len(into)))

    def checksum(self, dtype: torch.dtype) -> Tensor:
        """This part of the tensor's checksum when it is sent as `dtype`, as checksum_tensor gives it."""
        total = torch.zeros((), dtype=torch.int64, device=self.device)
        for start in range(self.start, self.stop, _GPU_CHUNK):
            part = self.part(start, min(_GPU_CHUNK, self.stop - start))
            total += checksum_tensor(part, start, dtype=dtype)
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A range of one tensor's elements in one bucket."""

    index: int  # of the tensor in the manifest
    start: int  # first element of the flat full tensor
    count: int  # elements
    offset: int  # first byte in the bucket


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype's name in a manifest; TransportError for a dtype that cannot be sent."""
    if dtype not in _DTYPE_NAMES:
        raise TransportError(f"weights of {dtype} cannot be sent; dtypes that can: {', '.join(DTYPES)}")
    return _DTYPE_NAMES[dtype]


def plan(manifest: WeightManifest) -> Iterator[list[Piece]]:
    """The pieces of each bucket, bucket by bucket. TransportError if the manifest is inconsistent.

    A bucket never cuts an element, and elements start at multiples of their size. So bucket_bytes must be a multiple of the element
    sizes, and a tensor of wide elements must not follow an odd number of narrow ones.
    """
    pieces: list[Piece] = []
    used = 0
    for index, spec in enumerate(manifest.tensors):
        size = _itemsize(spec)
        if manifest.bucket_bytes < size or manifest.bucket_bytes % size or used % size:
            raise TransportError(
                f"{spec.name}: a bucket of {manifest.bucket_bytes} bytes, {used} of them used, "
                f"would cut its {spec.dtype} elements"
            )
        start, total = 0, spec.num_bytes // size
        while start < total:
            count = min(total - start, (manifest.bucket_bytes - used) // size)
            pieces.append(Piece(index=index, start=start, count=count, offset=used))
            start += count
            used += count * size
            if used == manifest.bucket_bytes:
                yield pieces
                pieces, used = [], 0
    if pieces:
        yield pieces


def bucket_size(pieces: list[Piece], manifest: WeightManifest) -> int:
    """Bytes used in the bucket of `pieces`."""
    last = pieces[-1]
    return last.offset + last.count * DTYPES[manifest.tensors[last.index].dtype].itemsize


class Buckets:
    """Memory of one process for the two buckets of a transfer. It is kept for the next one: pages that are new cost a CPU a fifth of a
    transfer. One transfer at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._kept = torch.empty(0, dtype=torch.uint8)

    def of_size(self, num_bytes: int) -> tuple[Tensor, Tensor]:
        """Two buckets, [num_bytes] uint8 each, with any content."""
        if self._kept.numel() < 2 * num_bytes:
            self.forget()  # before the larger ones are made
            self._kept = torch.empty(2 * num_bytes, dtype=torch.uint8, device=self._device)
        return self._kept[:num_bytes], self._kept[num_bytes : 2 * num_bytes]

    def of(self, manifest: WeightManifest) -> tuple[Tensor, Tensor]:
        """Two buckets for this stream."""
        return self.of_size(_rounded_up(min(manifest.bucket_bytes, manifest.total_bytes)))

    def forget(self) -> None:
        """After a transfer that broke: an operation that was given up may still use the memory."""
        self._kept = torch.empty(0, dtype=torch.uint8)


def checksum(wire: Tensor, start: int = 0, *, dtype: torch.dtype | None = None) -> int:
    """Position-weighted 64-bit sum of a flat tensor's bits: sum over i of bits(x_i) * weight(start + i), modulo 2^64.

    wire [n]: elements `start` to `start + n` of the flat full tensor. dtype: the dtype that is sent, if `wire` has another; it is cast
    chunk by chunk. Integer sums do not depend on order, so the sums of a tensor's shards, added modulo 2^64, are the sum of the whole
    tensor. Weights are odd, so any change of a single element is detected; they differ by position, so moved elements are detected
    too. The checksum guards against bugs and faults, not against an attacker.
    """
    return int(checksum_tensor(wire, start, dtype=dtype).item()) % 2**64


def checksum_tensor(wire: Tensor, start: int = 0, *, dtype: torch.dtype | None = None) -> Tensor:
    """`checksum` as an int64 scalar on the device: the same bits, read as a signed number."""
    total = torch.zeros((), dtype=torch.int64, device=wire.device)
    size = _CPU_CHUNK if wire.device.type == "cpu" else _GPU_CHUNK
    for low in range(0, wire.numel(), size):
        chunk = wire[low : low + size].to(dtype or wire.dtype)
        bits = chunk.view(_INTEGER_OF_SIZE[chunk.itemsize]).to(torch.int64)
        first = start + low
        kept = first == 0 and wire.device.type == "cpu"
        weight = _first_place_weights()[: len(bits)] if kept else _place_weights(first, len(bits), wire.device)
        total += bits.mul_(weight).sum()
    return total


@functools.cache
def _first_place_weights() -> Tensor:
    """Kept, because each tensor begins with them, and making them takes longer than the checksum itself."""
    return _place_weights(0, _CPU_CHUNK, torch.device("cpu"))


def _place_weights(first: int, count: int, device: torch.device) -> Tensor:
    """[count] int64, odd: by what the bits of the elements `first`, `first` + 1, ... are multiplied."""
    weight = torch.arange(first, first + count, dtype=torch.int64, device=device)
    weight.mul_(_MIX_A)
    return weight.bitwise_xor_(weight >> 29).mul_(_MIX_B).bitwise_or_(1)


def receive(
    group: WeightGroup, manifest: WeightManifest, into: Mapping[str, Tensor], buckets: Buckets | None = None
) -> None:
    """Receives the announced stream into preallocated full tensors, casting if their dtype differs from the stream's.

    While one bucket is unpacked, the next is being sent. Blocks; run it in a thread. TransportError if `into` does not match the
    manifest, a member is lost or a checksum differs; the contents of `into` are then undefined. buckets: None: new ones.
    """
    targets = _targets(manifest, into)
    buckets = buckets or Buckets(group.device)
    try:
        _receive(group, manifest, targets, buckets.of(manifest))
    except TransportError:
        buckets.forget()
        raise


def _receive(
    group: WeightGroup, manifest: WeightManifest, targets: list[Tensor], buckets: tuple[Tensor, Tensor]
) -> None:
    sums = [torch.zeros((), dtype=torch.int64, device=group.device) for _ in manifest.tensors]
    cuts = list(plan(manifest))
    works: list[Work] = []
    for turn in range(-2, len(cuts)):  # the first two only start the broadcasts into both buckets
        pieces = cuts[turn] if turn >= 0 else []
        if turn >= 0:
            works[turn].wait()
        for piece in pieces:
            spec = manifest.tensors[piece.index]
            wire = wire_view(buckets[turn % 2], piece, DTYPES[spec.dtype])
            targets[piece.index][piece.start : piece.start + piece.count].copy_(wire)
            if spec.checksum is not None:
                sums[piece.index] += checksum_tensor(wire, piece.start)
        if turn + 2 < len(cuts):  # into the bucket that is free now, while the other one is being filled
            works.append(group.broadcast(buckets[turn % 2][: bucket_size(cuts[turn + 2], manifest)]))
    for spec, total in zip(manifest.tensors, torch.stack(sums).tolist() if sums else [], strict=True):
        if spec.checksum is not None and total % 2**64 != spec.checksum:
            raise TransportError(
                f"{spec.name} of {manifest.channel} version {manifest.version}: checksum {total % 2**64:#x} differs "
                f"from the announced {spec.checksum:#x}"
            )


def wire_view(bucket: Tensor, piece: Piece, dtype: torch.dtype) -> Tensor:
    """The piece's bytes in the bucket, viewed as [count] elements of `dtype`."""
    return bucket[piece.offset : piece.offset + piece.count * dtype.itemsize].view(dtype)


def _rounded_up(num_bytes: int) -> int:
    return num_bytes + -num_bytes % _ALIGNMENT


def _itemsize(spec: TensorSpec) -> int:
    if spec.dtype not in DTYPES:
        raise TransportError(f"{spec.name}: dtype {spec.dtype!r} cannot be sent; dtypes that can: {', '.join(DTYPES)}")
    size = DTYPES[spec.dtype].itemsize
    if spec.num_bytes != math.prod(spec.shape) * size:
        raise TransportError(f"{spec.name}: {spec.num_bytes} bytes announced for shape {spec.shape} of {spec.dtype}")
    return size


def _targets(manifest: WeightManifest, into: Mapping[str, Tensor]) -> list[Tensor]:
    """The flat tensors to fill, in manifest order."""
    names = [spec.name for spec in manifest.tensors]
    if len(set(names)) != len(names) or set(names) != into.keys():
        raise TransportError(
            f"manifest of {manifest.channel} version {manifest.version} does not name exactly the tensors held here: "
            f"{sorted(set(names) ^ into.keys()) or 'a name comes twice'}"
        )
    for spec in manifest.tensors:
        if tuple(into[spec.name].shape) != spec.shape or not into[spec.name].is_contiguous():
            raise TransportError(
                f"{spec.name}: announced as {spec.shape}, held here as {tuple(into[spec.name].shape)}, "
                f"contiguous: {into[spec.name].is_contiguous()}"
            )
    return [into[name].view(-1) for name in names]
