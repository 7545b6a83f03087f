"""One learner rank as a process. It takes and returns bytes, and sends weights on the channels."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist

from corewarding.dataflow.codec import decode, encode
from corewarding.dataflow.ids import Channel, SetName
from corewarding.dataflow.process import keep_log, pin_to_cores, settle
from corewarding.dataflow.weights import Rendezvous, WeightManifest
from corewarding.learner.device import choose_device, collective_backend
from corewarding.learner.learner import Learner, device_of
from corewarding.learner.model import LoadedPolicy, Loading, loading
from corewarding.learner.settings import LearnerPlan
from corewarding.weights.group import LOOPBACK, interface_towards, open_store
from corewarding.weights.sealed_store import SealedStore, new_key, recognise
from corewarding.weights.sender import WeightSender

REPORT_S = 1.0
"""Seconds between two reports of a rank that loads the model."""

MEET = timedelta(minutes=5)

SAVING = "saving"
"""The calls that write checkpoints; they run in a thread of their own."""


class LearnerActor:
    """A Learner and its WeightSender. `ray.remote` is applied where it is placed.

    Calls run one at a time, and `open` is the first; those of the group SAVING run beside them.
    """

    def __init__(
        self,
        plan: LearnerPlan,
        *,
        rank: int,
        world_size: int,
        incarnation: int,
        bucket_bytes: int,
        wire_dtype: str,
        log: Path | None = None,
    ) -> None:
        """log: the file of this process."""
        keep_log(log)
        self._plan, self._rank, self._world_size, self._incarnation = plan, rank, world_size, incarnation
        self._bucket_bytes, self._wire_dtype = bucket_bytes, wire_dtype
        self._announced: dict[Channel, tuple[WeightManifest, Channel]] = {}  # what was announced, and whose weights

    def meeting_point(self, loopback: bool) -> tuple[str, int, bytes]:
        """Rank 0 opens a store. Its address, as the other ranks and the engines reach it, its port, and the key of the ranks."""
        host = LOOPBACK if loopback else ray.util.get_node_ip_address()
        self._store = open_store(host, timeout=MEET)
        return host, self._store.port, new_key()

    def open(self, host: str, port: int, key: bytes) -> Iterator[tuple[int, int]]:
        """Loads the model. With several ranks, they meet at rank 0's meeting point.

        Yields, every REPORT_S seconds, the bytes that this rank has read and all that it reads.
        """
        plan = self._plan
        pin_to_cores(plan.learner.cores, key="learner.cores")
        torch.set_num_threads(plan.learner.threads)
        if self._world_size > 1:
            self._meet(host, port, key)
        rank, world_size = self._rank, self._world_size
        loaded = yield from _now_and_then(loading(plan.model_path, plan.learner, device_of(plan), world_size))
        self._learner = Learner(plan, rank=rank, world_size=world_size, incarnation=self._incarnation, loaded=loaded)
        self._host = host
        self._sender = WeightSender(
            self._rank,
            self._world_size,
            self._learner.device,
            bucket_bytes=self._bucket_bytes,
            wire_dtype=getattr(torch, self._wire_dtype),
        )
        settle()

    def _meet(self, host: str, port: int, key: bytes) -> None:
        """Makes torch's default group of all ranks. StrangerError if something else takes part."""
        # the default interface is one that strangers reach, or one that other nodes cannot reach
        interface = interface_towards(host, port)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")
        if self._rank > 0:
            self._store = dist.TCPStore(host, port, timeout=MEET, wait_for_workers=False)
        settings, rank, world_size = self._plan.learner, self._rank, self._world_size
        device = choose_device(settings.device, share=settings.gpus_per_rank)
        store = SealedStore(self._store, key)
        dist.init_process_group(collective_backend(device), store=store, rank=rank, world_size=world_size)
        if device.type == "cpu":
            recognise(dist.group.WORLD, key, rank=rank, world_size=world_size)

    def version(self, channel: Channel = "policy") -> bytes:
        return encode(self._learner.version_of(channel))

    def update(self, batch: bytes) -> bytes:
        return encode(self._learner.update(decode(batch)))

    def token_statistics(self, samples: bytes) -> bytes:
        return encode(self._learner.token_statistics(decode(samples)))

    def logprobs(self, samples: bytes, which: SetName) -> bytes:
        return encode(self._learner.logprobs(decode(samples), which))

    def stage(self) -> None:
        self._learner.stage()

    @ray.method(concurrency_group=SAVING)
    def write(self, folder: str) -> None:
        self._learner.write(Path(folder))

    @ray.method(concurrency_group=SAVING)
    def export(self, written: str, folder: str, channel: Channel) -> None:
        if self._rank == 0:
            self._learner.export(Path(written), Path(folder), channel)

    def load(self, folder: str, incarnation: int) -> None:
        self._learner.load(Path(folder), incarnation=incarnation)

    def open_incarnation(self, incarnation: int) -> None:
        """From now on the versions are of another incarnation."""
        self._learner.version = dataclasses.replace(self._learner.version, incarnation=incarnation)

    # Weight channels. Only rank 0 talks to engines; `announce` and `send` are collective.

    def serve(
        self, channel: Channel, group_epoch: int, num_receivers: int, backend: str, timeout_s: float
    ) -> bytes | None:
        if self._rank != 0:
            return None
        return encode(self._sender.serve(channel, group_epoch, num_receivers, backend, timeout_s, self._host))

    def connect(self, rendezvous: bytes) -> None:
        if self._rank == 0:
            message = decode(rendezvous)
            assert isinstance(message, Rendezvous)
            self._sender.connect(message)

    def announce(self, channel: Channel, with_checksums: bool, weights: Channel) -> bytes:
        """weights: whose weights go to the engines of `channel`."""
        manifest = self._sender.manifest(
            channel, self._learner.version_of(weights), self._learner.shards(weights), with_checksums=with_checksums
        )
        self._announced[channel] = manifest, weights
        return encode(manifest)

    def send(self, channel: Channel) -> None:
        manifest, weights = self._announced[channel]
        self._sender.send(channel, manifest, self._learner.shards(weights))

    def close_channel(self, channel: Channel) -> None:
        if self._rank == 0:
            self._sender.close(channel)


def _now_and_then(steps: Loading) -> Loading:
    """The same steps; of the yielded values only one in REPORT_S seconds."""
    said = time.monotonic()
    while True:
        try:
            read = next(steps)
        except StopIteration as end:
            loaded: LoadedPolicy = end.value
            return loaded
        if time.monotonic() - said > REPORT_S:
            said = time.monotonic()
            yield read


def actor_options(plan: LearnerPlan, runtime_env: dict[str, Any]) -> dict[str, Any]:
    """The Ray options of one rank."""
    settings = plan.learner
    return {
        "num_cpus": settings.cpus_per_rank,
        "num_gpus": settings.gpus_per_rank,
        "resources": settings.resources,
        "runtime_env": runtime_env,
        "concurrency_groups": {SAVING: 1},
    }
