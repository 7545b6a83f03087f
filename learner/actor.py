"""One learner rank as a process. It takes and returns bytes, and sends weights on the channels."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import ray
import torch

from corewarding.dataflow.codec import decode, encode
from corewarding.dataflow.ids import Channel, SetName
from corewarding.dataflow.process import pin_to_cores
from corewarding.dataflow.weights import Rendezvous, WeightManifest
from corewarding.learner.learner import Learner
from corewarding.learner.settings import LearnerPlan
from corewarding.weights.group import LOOPBACK, interface_towards
from corewarding.weights.sender import WeightSender

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
    ) -> None:
        self._plan, self._rank, self._world_size, self._incarnation = plan, rank, world_size, incarnation
        self._bucket_bytes, self._wire_dtype = bucket_bytes, wire_dtype
        self._manifests: dict[Channel, WeightManifest] = {}

    def meeting_point(self, loopback: bool) -> tuple[str, int]:
        """Rank 0's address, as the other ranks and the engines reach it, and a port that is free there."""
        host = LOOPBACK if loopback else ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((host, 0))
            return host, int(probe.getsockname()[1])

    def open(self, host: str, port: int) -> None:
        """Loads the model. With several ranks, they meet at rank 0's meeting point."""
        plan = self._plan
        pin_to_cores(plan.learner.cores, key="learner.cores")
        torch.set_num_threads(plan.learner.threads)
        if host != LOOPBACK:  # gloo's default interface is often one that other nodes cannot reach
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface_towards(host, port))
        self._learner = Learner(
            plan,
            rank=self._rank,
            world_size=self._world_size,
            init_method=f"tcp://{host}:{port}" if self._world_size > 1 else None,
            incarnation=self._incarnation,
        )
        self._host = host
        self._sender = WeightSender(
            self._rank,
            self._world_size,
            self._learner.device,
            bucket_bytes=self._bucket_bytes,
            wire_dtype=getattr(torch, self._wire_dtype),
        )

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

    def announce(self, channel: Channel, with_checksums: bool) -> bytes:
        manifest = self._sender.manifest(
            channel, self._learner.version_of(channel), self._learner.shards(channel), with_checksums=with_checksums
        )
        self._manifests[channel] = manifest
        return encode(manifest)

    def send(self, channel: Channel) -> None:
        self._sender.send(channel, self._manifests[channel], self._learner.shards(channel))

    def close_channel(self, channel: Channel) -> None:
        if self._rank == 0:
            self._sender.close(channel)


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
