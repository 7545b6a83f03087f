"""A weight transfer over gloo beside the smallest loop that does the same work.

    python -m benchmarks.weights.beside_bare_gloo [--mb 512] [--bucket-mb 64] [--rounds 7]

Both send the same float32 numbers as bfloat16 to processes that hold bfloat16 tensors of 4 MiB, without checksums, in turns: from one
rank to one receiver, and from two ranks, with half of each tensor, to two receivers. The loop casts into one of two buckets while the
other one is broadcast, and copies out of one while the other arrives; it knows no manifest, shards, errors or channels. A turn ends
when the last receiver has all. Prints seconds, and the median over the rounds of the loop's time divided by ours.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.synchronize import Barrier
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from corewarding.dataflow.codec import decode, encode
from corewarding.dataflow.ids import Version
from corewarding.dataflow.weights import Rendezvous, WeightManifest
from corewarding.weights.group import open_store
from corewarding.weights.receiver import WeightReceiver
from corewarding.weights.sender import WeightSender
from corewarding.weights.stream import Shard

ELEMENTS = 1 << 21
HOST, TIMEOUT = "127.0.0.1", timedelta(seconds=60)
ARMS = ("bare loop", "ours")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    ranks: int
    receivers: int
    tensors: int
    bucket_bytes: int
    rounds: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=512)
    parser.add_argument("--bucket-mb", type=float, default=64.0)
    parser.add_argument("--rounds", type=int, default=7)
    its = parser.parse_args()
    print(
        "| ranks | receivers | bare loop, s | ours, s | loop / ours, median | min | max |\n|---|---|---|---|---|---|---|"
    )
    for ranks, receivers in ((1, 1), (2, 2)):
        setting = Setting(
            ranks=ranks,
            receivers=receivers,
            tensors=max(1, its.mb * 2**20 // (2 * ELEMENTS)),
            bucket_bytes=int(its.bucket_mb * 2**20),
            rounds=its.rounds,
        )
        seconds = measured(setting)
        ratios = [bare / ours for bare, ours in zip(seconds["bare loop"], seconds["ours"], strict=True)]
        bare, ours = (statistics.median(seconds[arm]) for arm in ARMS)
        print(
            f"| {ranks} | {receivers} | {bare:.3f} | {ours:.3f} "
            f"| {statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} |",
            flush=True,
        )


def measured(its: Setting) -> dict[str, list[float]]:
    """Seconds of each turn, by arm."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(its.ranks + its.receivers)
    stores = open_store(HOST, timeout=TIMEOUT)
    found: Any = context.Queue()
    everyone = [
        context.Process(target=member, args=(its, number, stores.port, barrier, found))
        for number in range(its.ranks + its.receivers)
    ]
    for process in everyone:
        process.start()
    seconds: dict[str, list[float]] = found.get(timeout=600)
    for process in everyone:
        process.join()
    return seconds


def member(its: Setting, number: int, port: int, barrier: Barrier, found: Any) -> None:
    """One process: a rank, or a receiver."""
    torch.set_num_threads(1)
    store = dist.TCPStore(HOST, port, timeout=TIMEOUT, wait_for_workers=False)
    arms = (Rank if number < its.ranks else Receiver)(its, number, store)
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for turn in range(2 * (its.rounds + 1)):
        arm = ARMS[(turn + turn // 2) % 2]
        arms.prepare(arm)
        barrier.wait()
        began = time.perf_counter()
        arms.move(arm)
        barrier.wait()
        if turn >= 2:  # the first two warm up
            seconds[arm].append(time.perf_counter() - began)
    if number == 0:
        found.put(seconds)
    barrier.wait()  # nobody leaves while another is still sending


def gloo(store: dist.Store, name: str, rank: int, size: int) -> Any:
    options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._devices = [dist.ProcessGroupGloo.create_device(hostname=HOST)]
    options._timeout = TIMEOUT
    return dist.ProcessGroupGloo(dist.PrefixStore(name, store), rank, size, options)


def broadcast(group: Any, tensor: Tensor) -> Any:
    options = dist.BroadcastOptions()
    options.rootRank, options.rootTensor = 0, 0
    return group.broadcast([tensor], options)


class Rank:
    """Holds its part of each tensor in float32, and sends."""

    def __init__(self, its: Setting, rank: int, store: dist.Store) -> None:
        self.its, self.rank, count = its, rank, ELEMENTS // its.ranks
        self.flat = torch.randn(its.tensors * count)
        self.shards = [
            Shard(name=f"w{index}", shape=(ELEMENTS,), start=rank * count, local=part)
            for index, part in enumerate(self.flat.split(count))
        ]
        self.group = gloo(store, "bare", 0, 1 + its.receivers) if rank == 0 else None
        if its.ranks > 1:
            options = {"store": dist.PrefixStore("ranks", store), "rank": rank, "world_size": its.ranks}
            dist.init_process_group("gloo", timeout=TIMEOUT, **options)
        size = its.bucket_bytes // 2
        self.buckets = [torch.empty(size, dtype=torch.bfloat16) for _ in range(2)]
        self.store = store
        self.sender = WeightSender(
            rank, its.ranks, torch.device("cpu"), bucket_bytes=its.bucket_bytes, wire_dtype=torch.bfloat16
        )
        if rank == 0:
            rendezvous = self.sender.serve("policy", 1, its.receivers, "gloo", TIMEOUT.total_seconds())
            store.set("rendezvous", encode(rendezvous))
            self.sender.connect(rendezvous)

    def prepare(self, arm: str) -> None:
        if arm == "ours":
            version = Version(incarnation=0, updates=1)
            self.manifest = self.sender.manifest("policy", version, self.shards, with_checksums=False)
            if self.rank == 0:
                self.store.set("manifest", encode(self.manifest))

    def move(self, arm: str) -> None:
        if arm == "ours":
            self.sender.send("policy", self.manifest, self.shards)
        elif self.rank == 0:
            self.bare_root()
        else:
            self.bare_other()

    def bare_root(self) -> None:
        works: list[Any] = [None, None]
        own = len(self.buckets[0]) // self.its.ranks
        for turn, part in enumerate(self.flat.split(own)):
            bucket = self.buckets[turn % 2]
            if works[turn % 2] is not None:
                works[turn % 2].wait()
            coming = [
                dist.irecv(bucket[rank * own : rank * own + len(part)].view(torch.uint8), src=rank)
                for rank in range(1, self.its.ranks)
            ]
            bucket[: len(part)].copy_(part)
            for work in coming:
                assert work is not None
                work.wait()
            works[turn % 2] = broadcast(self.group, bucket)
        for work in works:
            if work is not None:
                work.wait()

    def bare_other(self) -> None:
        works: list[Any] = [None, None]
        own = len(self.buckets[0]) // self.its.ranks
        for turn, part in enumerate(self.flat.split(own)):
            bucket = self.buckets[turn % 2][: len(part)]
            if works[turn % 2] is not None:
                works[turn % 2].wait()
            bucket.copy_(part)
            works[turn % 2] = dist.isend(bucket.view(torch.uint8), dst=0)
        for work in works:
            if work is not None:
                work.wait()


class Receiver:
    """Holds all tensors in bfloat16, and receives into them."""

    def __init__(self, its: Setting, number: int, store: dist.Store) -> None:
        self.its, self.store = its, store
        rank = number - its.ranks + 1
        self.group = gloo(store, "bare", rank, 1 + its.receivers)
        size = its.bucket_bytes // 2
        self.buckets = [torch.empty(size, dtype=torch.bfloat16) for _ in range(2)]
        self.flat = torch.empty(its.tensors * ELEMENTS, dtype=torch.bfloat16)
        names = {
            f"w{index}": torch.empty(ELEMENTS, dtype=torch.bfloat16, device="meta") for index in range(its.tensors)
        }
        self.receiver = WeightReceiver(names, torch.device("cpu"))
        rendezvous = decode(store.get("rendezvous"))
        assert isinstance(rendezvous, Rendezvous)
        self.receiver.join(rendezvous, rank)

    def prepare(self, arm: str) -> None:
        pass

    def move(self, arm: str) -> None:
        if arm == "ours":
            manifest = decode(self.store.get("manifest"))
            assert isinstance(manifest, WeightManifest)
            self.receiver.begin(manifest)
            self.receiver.receive()
            self.receiver.take(manifest.version)
            return
        parts = list(self.flat.split(len(self.buckets[0])))
        works = [broadcast(self.group, bucket) for bucket, _ in zip(self.buckets, parts, strict=False)]
        for turn, part in enumerate(parts):
            works[turn].wait()
            part.copy_(self.buckets[turn % 2][: len(part)])
            if turn + 2 < len(parts):
                works.append(broadcast(self.group, self.buckets[turn % 2]))


if __name__ == "__main__":
    main()
