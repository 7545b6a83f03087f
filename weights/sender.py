"""The sending end of a weight transfer. Each learner rank has one.

Other ranks send their shards to rank 0 through the learner's default process group, piece by piece, directly into the bucket that
rank 0 then broadcasts on a weight group. No full tensor is assembled. While one bucket is on its way, the next is filled, on all
ranks.
Invariants: besides the shards, a rank holds at most two buckets. A weight group that breaks never leaves the learner's ranks out of
step: rank 0 receives all that they send, then raises.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from corewarding.dataflow.ids import Channel, Version
from corewarding.dataflow.weights import Rendezvous, TensorSpec, WeightManifest
from corewarding.weights.group import TransportError, WeightGroup, Work, serve
from corewarding.weights.stream import (
    Buckets,
    Piece,
    Shard,
    bucket_size,
    dtype_name,
    plan,
    wire_view,
)

_ALIGNMENT = 16  # bucket sizes are rounded down to multiples of this, so no element spans two buckets


class WeightSender:
    """One rank's part of sending. Only rank 0 belongs to the weight groups."""

    def __init__(
        self, rank: int, world_size: int, device: torch.device, *, bucket_bytes: int, wire_dtype: torch.dtype
    ) -> None:
        """world_size > 1 needs an initialized default process group. Shards are cast to `wire_dtype` when they are sent."""
        if bucket_bytes < _ALIGNMENT:
            raise TransportError(f"bucket_bytes must be at least {_ALIGNMENT}, got {bucket_bytes}")
        self._rank = rank
        self._world_size = world_size
        self._device = device
        self._bucket_bytes = bucket_bytes - bucket_bytes % _ALIGNMENT
        self._wire_dtype = wire_dtype
        self._buckets = Buckets(device)
        self._serving: dict[Channel, tuple[Rendezvous, dist.Store]] = {}
        self._groups: dict[Channel, WeightGroup] = {}

    def serve(
        self,
        channel: Channel,
        group_epoch: int,
        num_receivers: int,
        backend: str,
        timeout_s: float,
        host: str | None = None,
    ) -> Rendezvous:
        """Rank 0: opens the rendezvous of a new group and leaves the channel's earlier one."""
        self.close(channel)
        rendezvous, store = serve(
            channel=channel,
            group_epoch=group_epoch,
            world_size=num_receivers + 1,
            backend=backend,
            timeout_s=timeout_s,
            host=host,
        )
        self._serving[channel] = (rendezvous, store)
        return rendezvous

    def connect(self, rendezvous: Rendezvous) -> None:
        """Rank 0: blocks until the receivers have joined. TransportError, with the missing ranks, at timeout."""
        served, store = self._serving.get(rendezvous.channel, (None, None))
        if served != rendezvous:
            raise TransportError(f"asked to connect {rendezvous}, but serving {served}")
        self._groups[rendezvous.channel] = WeightGroup(rendezvous, rank=0, device=self._device, store=store)

    def manifest(
        self, channel: Channel, version: Version, shards: Sequence[Shard], *, with_checksums: bool
    ) -> WeightManifest:
        """The manifest of what send() will send. Collective over the learner's ranks, which all get the same manifest.

        shards: this rank's part of every tensor, in the same order on all ranks.
        """
        group = self._groups.get(channel)
        if self._rank == 0 and group is None:
            raise TransportError(f"no {channel} weight group is connected")
        totals = torch.zeros(len(shards) + 1, dtype=torch.int64, device=self._device)
        if group is not None:
            totals[-1] = group.rendezvous.group_epoch
        if with_checksums:
            for index, shard in enumerate(shards):
                totals[index] = shard.checksum(self._wire_dtype)
        if self._world_size > 1:
            dist.all_reduce(totals)  # 64-bit sums wrap around, and so do checksums
        *sums, group_epoch = totals.tolist()
        return WeightManifest(
            channel=channel,
            version=version,
            group_epoch=group_epoch,
            bucket_bytes=self._bucket_bytes,
            tensors=tuple(
                TensorSpec(
                    name=shard.name,
                    shape=tuple(shard.shape),
                    dtype=dtype_name(self._wire_dtype),
                    num_bytes=math.prod(shard.shape) * self._wire_dtype.itemsize,
                    checksum=total % 2**64 if with_checksums else None,
                )
                for shard, total in zip(shards, sums, strict=True)
            ),
        )

    def send(self, channel: Channel, manifest: WeightManifest, shards: Sequence[Shard]) -> None:
        """Sends the announced stream. Collective over the learner's ranks; the shards must not change meanwhile.

        TransportError on rank 0 only if a receiver is lost; on every rank, before anything is sent, if the shards do not tile the
        tensors.
        """
        owners = self._owners(manifest, shards)
        if self._rank == 0:
            self._send_root(self._groups[channel], manifest, shards, owners)
        else:
            self._send_to_root(manifest, shards, owners)

    def close(self, channel: Channel) -> None:
        """Leaves the channel's weight group, if any."""
        group = self._groups.pop(channel, None)
        if group is not None:
            group.close()
        self._serving.pop(channel, None)

    def _send_root(
        self, group: WeightGroup, manifest: WeightManifest, shards: Sequence[Shard], owners: list[list[tuple[int, int]]]
    ) -> None:
        buckets = self._buckets.of(manifest)
        works: list[Work | None] = [None, None]
        failure: TransportError | None = None
        for turn, pieces in enumerate(plan(manifest)):
            bucket = buckets[turn % 2]
            failure = failure or _outcome(works[turn % 2])  # must end before the bucket is filled again
            self._fill(bucket, pieces, shards, owners)
            if failure is None:
                works[turn % 2], failure = _start(group, bucket[: bucket_size(pieces, manifest)])
        for work in works:
            failure = _outcome(work) or failure
        if failure is not None:
            self.close(manifest.channel)
            self._buckets.forget()
            raise failure

    def _fill(
        self, bucket: Tensor, pieces: list[Piece], shards: Sequence[Shard], owners: list[list[tuple[int, int]]]
    ) -> None:
        """Casts what rank 0 holds, while the other ranks' parts arrive."""
        own: list[tuple[Shard, int, Tensor]] = []
        coming: list[dist.Work | None] = []
        for piece in pieces:
            wire = wire_view(bucket, piece, self._wire_dtype)
            for rank, part in _parts(piece, owners[piece.index]):
                slot = wire[part.offset : part.offset + part.count]
                if rank == 0:
                    own.append((shards[piece.index], part.start, slot))
                else:
                    coming.append(dist.irecv(slot.view(torch.uint8), src=rank))
        for shard, start, slot in own:
            shard.write(start, slot)
        _await(coming)

    def _send_to_root(
        self, manifest: WeightManifest, shards: Sequence[Shard], owners: list[list[tuple[int, int]]]
    ) -> None:
        """The parts of this rank, cast into one of two buckets while the other one is sent."""
        buckets = self._buckets.of(manifest)
        sent: list[list[dist.Work | None]] = [[], []]
        for turn, pieces in enumerate(plan(manifest)):
            _await(sent[turn % 2])
            sent[turn % 2], wire, used = [], buckets[turn % 2].view(self._wire_dtype), 0
            for piece in pieces:
                for rank, part in _parts(piece, owners[piece.index]):
                    if rank == self._rank:
                        slot = wire[used : used + part.count]
                        shards[piece.index].write(part.start, slot)
                        sent[turn % 2].append(dist.isend(slot.view(torch.uint8), dst=0))
                        used += part.count
        for works in sent:
            _await(works)

    def _owners(self, manifest: WeightManifest, shards: Sequence[Shard]) -> list[list[tuple[int, int]]]:
        """For each tensor, the (start, stop) elements that each rank holds."""
        own = torch.tensor([(s.start, s.stop) for s in shards], dtype=torch.int64, device=self._device).reshape(-1, 2)
        ranges = [torch.empty_like(own) for _ in range(self._world_size)]
        if self._world_size > 1:
            dist.all_gather(ranges, own)
        else:
            ranges = [own]
        table = torch.stack(ranges, dim=1).tolist()  # [tensors, ranks, 2]
        owners = [[(start, stop) for start, stop in row] for row in table]
        for spec, shard, row in zip(manifest.tensors, shards, owners, strict=True):
            if spec.name != shard.name:
                raise TransportError(f"manifest announces {spec.name} where the shards have {shard.name}")
            _check_tiling(spec, row)
        return owners


def _check_tiling(spec: TensorSpec, row: list[tuple[int, int]]) -> None:
    reached = 0
    for start, stop in sorted((start, stop) for start, stop in row if stop > start):
        if start != reached:
            break
        reached = stop
    else:
        if reached == math.prod(spec.shape):
            return
    raise TransportError(f"{spec.name} {spec.shape}: the ranks' shards {row} do not tile its elements")


def _parts(piece: Piece, owners: list[tuple[int, int]]) -> list[tuple[int, Piece]]:
    """The piece cut by owner, as (rank, part); a part's offset counts elements within the piece."""
    parts = []
    for rank, (start, stop) in enumerate(owners):
        low, high = max(start, piece.start), min(stop, piece.start + piece.count)
        if low < high:
            parts.append((rank, Piece(index=piece.index, start=low, count=high - low, offset=low - piece.start)))
    return parts


def _await(works: Iterable[dist.Work | None]) -> None:
    for work in works:
        assert work is not None  # only outside the group
        work.wait()


def _start(group: WeightGroup, data: Tensor) -> tuple[Work | None, TransportError | None]:
    try:
        return group.broadcast(data), None
    except TransportError as error:
        return None, error


def _outcome(work: Work | None) -> TransportError | None:
    """Waits for a broadcast and returns its error. It is not raised, because the other ranks are still sending."""
    try:
        if work is not None:
            work.wait()
    except TransportError as error:
        return error
    return None
