"""The learner's ranks as one object: each call goes to all ranks, waits for all, and returns rank 0's answer.

A call is submitted to all ranks without yielding in between. So every rank sees the same order of calls, and collectives match.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import ray
from ray.exceptions import RayActorError, RayError

from corewarding.dataflow.carriers import Float32, StepResult, TrainingSample
from corewarding.dataflow.codec import decode, encode
from corewarding.dataflow.errors import RunError, UserError, origin
from corewarding.dataflow.ids import Channel, SetName, Version
from corewarding.dataflow.process import death_of
from corewarding.dataflow.weights import Rendezvous, WeightManifest
from corewarding.learner.actor import LearnerActor, actor_options
from corewarding.learner.settings import LearnerPlan

Message: TypeAlias = "bytes | ray.ObjectRef[bytes]"
"""Encoded by dataflow.codec, or Ray's reference to such bytes: a batch can go from the buffer to the ranks directly."""

DEATH_S = 3.0
"""How long a rank's death may take to be known, once another rank has failed."""


class LearnerDiedError(RunError):
    """A rank's process ended. The run can be resumed from its last checkpoint."""


class LearnerStartError(RunError):
    """A rank did not start. The message names the cause."""


class LearnerGroup:
    """K ranks. Async; used from the controller's event loop."""

    starting = False
    """These ranks are started once, before the run begins to be watched."""

    def __init__(
        self,
        plan: LearnerPlan,
        *,
        incarnation: int,
        bucket_bytes: int,
        wire_dtype: str,
        runtime_env: dict[str, Any],
        loopback: bool = True,
        options: Callable[[int], dict[str, Any]] = lambda rank: {},
        logs: Path | None = None,
    ) -> None:
        """loopback: all ranks and engines are on this machine; otherwise they meet at the address of rank 0's node.
        options: Ray options of a rank, such as its placement. logs: folder of the ranks' logs."""
        self.incarnation = incarnation
        self._doing: dict[str, float] = {}  # calls without an answer, and since when
        self._loopback, self._logs = loopback, logs
        world_size = plan.learner.ranks
        remote: Any = ray.remote(**actor_options(plan, runtime_env))(LearnerActor)
        self._ranks = [
            remote.options(**options(rank)).remote(
                plan,
                rank=rank,
                world_size=world_size,
                incarnation=incarnation,
                bucket_bytes=bucket_bytes,
                wire_dtype=wire_dtype,
                log=self._log(rank),
            )
            for rank in range(world_size)
        ]

    async def start(
        self, timeout_s: float = 300.0, *, on_read: Callable[[int, int], None] = lambda done, total: None
    ) -> Version:
        """Waits until all ranks have met and loaded the model. LearnerStartError when the first one fails, or after `timeout_s`; a
        UserError of a rank is raised as it is.

        on_read: called now and then, with the bytes that the ranks which have reported have read, and all that these read.
        """
        read: dict[int, tuple[int, int]] = {}

        async def open_rank(index: int, meeting_point: tuple[str, int, bytes]) -> None:
            reports = self._ranks[index].open.options(num_returns="streaming").remote(*meeting_point)
            try:
                async for report in reports:
                    read[index] = await report
                    on_read(*map(sum, zip(*read.values(), strict=True)))
            except RayActorError as error:
                why = death_of(error, self._log(index))
                raise LearnerStartError(f"a learner rank did not start: learner-{index}: {why}") from error

        async def opened() -> Version:
            meeting_point = await self._ranks[0].meeting_point.remote(self._loopback)
            await asyncio.gather(*(open_rank(index, meeting_point) for index in range(len(self._ranks))))
            return await self.version()

        try:
            return await asyncio.wait_for(opened(), timeout_s)
        except UserError:
            raise
        except TimeoutError:
            raise LearnerStartError(
                f"the learner's {len(self._ranks)} ranks did not load the model within {timeout_s:g} s (learner.start_timeout_s)"
            ) from None
        except RayError as error:
            cause = origin(error)
            what = str(cause) if isinstance(cause, RayError | RunError) else f"{type(cause).__name__}: {cause}"
            raise LearnerStartError(f"a learner rank did not start: {what}") from error

    async def version(self, channel: Channel = "policy") -> Version:
        """The policy's version; for the teacher, the version of the policy that it absorbed last."""
        version: Version = decode(await self._all("version", channel))
        return version

    async def update(self, batch: Message) -> StepResult:
        """One optimizer step. batch: an encoded TrainBatch."""
        result: StepResult = decode(await self._all("update", batch))
        return result

    async def token_statistics(self, samples: Message) -> bytes:
        """An encoded list of TokenStatistics. samples: an encoded list of TrainingSample."""
        statistics: bytes = await self._all("token_statistics", samples)
        return statistics

    async def logprobs(self, samples: Sequence[TrainingSample], which: SetName) -> list[Float32]:
        result: list[Float32] = decode(await self._all("logprobs", encode(list(samples)), which))
        return result

    async def stage(self) -> None:
        """Each rank copies its state to its host's memory. No update can run meanwhile."""
        await self._all("stage")

    async def write(self, folder: Path) -> None:
        """The ranks write what they staged last. Updates may run meanwhile."""
        await self._all("write", str(folder))

    async def export(self, written: Path, folder: Path, channel: Channel) -> None:
        """Makes a Hugging Face folder of what the ranks have written. Updates may run meanwhile."""
        await self._all("export", str(written), str(folder), channel)

    async def load(self, folder: Path, incarnation: int) -> None:
        await self._all("load", str(folder), incarnation)

    async def open_incarnation(self, incarnation: int) -> None:
        """From now on the versions are of another incarnation."""
        await self._all("open_incarnation", incarnation)

    async def serve_channel(
        self, channel: Channel, group_epoch: int, num_receivers: int, backend: str, timeout_s: float
    ) -> Rendezvous:
        result: Rendezvous = decode(await self._all("serve", channel, group_epoch, num_receivers, backend, timeout_s))
        return result

    async def connect_channel(self, rendezvous: Rendezvous) -> None:
        await self._all("connect", encode(rendezvous))

    async def announce(
        self, channel: Channel, group_epoch: int, with_checksums: bool, weights: Channel
    ) -> WeightManifest:
        manifest: WeightManifest = decode(await self._all("announce", channel, with_checksums, weights))
        assert manifest.group_epoch == group_epoch, f"{channel}: group {manifest.group_epoch}, expected {group_epoch}"
        return manifest

    async def send(self, channel: Channel) -> None:
        await self._all("send", channel)

    async def close_channel(self, channel: Channel) -> None:
        await self._all("close_channel", channel)

    async def close(self) -> None:
        for rank in self._ranks:
            ray.kill(rank)

    @property
    def doing(self) -> str | None:
        """What the ranks are doing and for how long, as in `update for 31 s`; None if nothing."""
        now = time.monotonic()
        return ", ".join(f"{method} for {now - since:.0f} s" for method, since in self._doing.items()) or None

    async def _all(self, method: str, *args: Any) -> Any:
        self._doing.setdefault(method, time.monotonic())
        calls = [asyncio.ensure_future(_answer(getattr(rank, method).remote(*args))) for rank in self._ranks]
        try:
            return (await asyncio.gather(*calls))[0]
        except RayError:
            await asyncio.wait(calls, timeout=DEATH_S)  # where one has died, the others fail too, perhaps sooner
            for rank, call in enumerate(calls):
                if call.done() and isinstance(error := call.exception(), RayActorError):
                    why = death_of(error, self._log(rank))
                    raise LearnerDiedError(f"a learner rank died during {method}: learner-{rank}: {why}") from error
            raise
        finally:
            self._doing.pop(method, None)
            for call in calls:
                call.cancel()

    def _log(self, rank: int) -> Path | None:
        return None if self._logs is None else self._logs / f"learner-{rank}.log"


async def _answer(reference: Any) -> Any:
    return await reference
