"""The learner's ranks as one: each call goes to all ranks, waits for all, and returns rank 0's answer.

Calls are handed to all ranks without a pause between them, so every rank sees the same order and collectives match.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import RayActorError

from dataflow.codec import decode, encode
from dataflow.types import (
    Channel,
    Float32,
    Rendezvous,
    StepResult,
    TokenStatistics,
    TrainBatch,
    TrainingSample,
    Version,
    WeightManifest,
)
from learner.actor import LearnerActor, actor_options
from learner.learner import LearnerPlan, Which


class LearnerDiedError(RuntimeError):
    """A rank's process ended. The run can be resumed from its last checkpoint."""


class LearnerGroup:
    """K ranks. Async; used from the controller's event loop."""

    def __init__(
        self,
        plan: LearnerPlan,
        *,
        incarnation: int,
        bucket_bytes: int,
        wire_dtype: str,
        runtime_env: dict[str, Any],
        host: str | None = None,
    ) -> None:
        """host: this node's address for ranks and engines on other nodes; None: loopback."""
        self.incarnation = incarnation
        world_size = plan.learner.ranks
        init_method = None if world_size == 1 else f"tcp://{host or '127.0.0.1'}:{_free_port()}"
        remote = ray.remote(**actor_options(plan, runtime_env))(LearnerActor)
        self._ranks = [
            remote.remote(
                plan,
                rank=rank,
                world_size=world_size,
                init_method=init_method,
                incarnation=incarnation,
                bucket_bytes=bucket_bytes,
                wire_dtype=wire_dtype,
                host=host,
            )
            for rank in range(world_size)
        ]

    async def start(self, timeout_s: float = 300.0) -> Version:
        """Waits until all ranks have loaded the model. TimeoutError where they do not."""
        version: Version = decode(await asyncio.wait_for(self._all("version"), timeout_s))
        return version

    async def version(self, channel: Channel = "policy") -> Version:
        """Of the policy, or the policy version the teacher has absorbed."""
        version: Version = decode(await self._all("version", channel))
        return version

    async def update(self, batch: TrainBatch) -> StepResult:
        result: StepResult = decode(await self._all("update", encode(batch)))
        return result

    async def token_statistics(self, samples: Sequence[TrainingSample]) -> list[TokenStatistics]:
        result: list[TokenStatistics] = decode(await self._all("token_statistics", encode(list(samples))))
        return result

    async def logprobs(self, samples: Sequence[TrainingSample], which: Which) -> list[Float32]:
        result: list[Float32] = decode(await self._all("logprobs", encode(list(samples)), which))
        return result

    async def save(self, folder: Path) -> None:
        await self._all("save", str(folder))

    async def load(self, folder: Path, incarnation: int) -> None:
        await self._all("load", str(folder), incarnation)

    async def export(self, folder: Path, which: Literal["policy", "teacher"]) -> None:
        await self._all("export", str(folder), which)

    async def serve_channel(
        self, channel: Channel, group_epoch: int, num_receivers: int, backend: str, timeout_s: float
    ) -> Rendezvous:
        result: Rendezvous = decode(await self._all("serve", channel, group_epoch, num_receivers, backend, timeout_s))
        return result

    async def connect_channel(self, rendezvous: Rendezvous) -> None:
        await self._all("connect", encode(rendezvous))

    async def announce(self, channel: Channel, group_epoch: int, with_checksums: bool) -> WeightManifest:
        manifest: WeightManifest = decode(await self._all("announce", channel, with_checksums))
        assert manifest.group_epoch == group_epoch, f"{channel}: group {manifest.group_epoch}, expected {group_epoch}"
        return manifest

    async def send(self, channel: Channel) -> None:
        await self._all("send", channel)

    async def close_channel(self, channel: Channel) -> None:
        await self._all("close_channel", channel)

    async def close(self) -> None:
        for rank in self._ranks:
            ray.kill(rank)

    async def _all(self, method: str, *args: Any) -> Any:
        refs = [getattr(rank, method).remote(*args) for rank in self._ranks]
        try:
            return (await asyncio.gather(*refs))[0]
        except RayActorError as error:
            raise LearnerDiedError(
                f"a learner rank died during {method}: {error}. `corewarding resume` goes on from the last checkpoint"
            ) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
