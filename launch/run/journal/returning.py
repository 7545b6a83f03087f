"""A learner that comes back: when a rank dies, its group is started again with the newest checkpoint and makes the updates since then
again from the journal. Engines, buffer and driver stay.

Calls that only read or compute are made again on the new ranks. A transfer that was under way is broken, so its weight group is
rebuilt without blaming a receiver; a checkpoint that was being written is given up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from corewarding.dataflow.carriers import Float32, StepResult, TrainingSample
from corewarding.dataflow.errors import RunError
from corewarding.dataflow.ids import Channel, SetName, Version
from corewarding.dataflow.weights import Rendezvous, WeightManifest
from corewarding.launch.run.protocols import StagedLostError
from corewarding.learner.group import LearnerDiedError, LearnerGroup, Message
from corewarding.weights.group import TransportError

T = TypeVar("T")


class ReturningLearner:
    """The learner's ranks as one, over all groups of ranks that there will be."""

    def __init__(
        self,
        ranks: LearnerGroup,
        *,
        updates: int,
        make: Callable[[], LearnerGroup],
        restore: Callable[[LearnerGroup, int], Awaitable[str]],
        max_restarts: int,
        say: Callable[[str], None],
    ) -> None:
        """ranks: started, with the weights after `updates` updates. make: another group, not started.

        restore: starts a group and gives it the weights after so many updates; returns words for people. RunError if it cannot.
        """
        self._ranks, self._updates = ranks, updates
        self._make, self._restore, self._say = make, restore, say
        self._left = self._most = max_restarts
        self._returning = asyncio.Lock()
        self._connected: dict[Channel, LearnerGroup] = {}  # the ranks that are in each weight group
        self._announced: dict[Channel, LearnerGroup] = {}  # the ranks that have announced what they will send
        self.starting = False
        """Whether ranks are being started, which has a limit of its own."""

    @property
    def doing(self) -> str | None:
        """What the ranks are doing and for how long, or None."""
        return "is started again" if self.starting else self._ranks.doing

    async def version(self, channel: Channel = "policy") -> Version:
        return await self._again(lambda ranks: ranks.version(channel))

    async def update(self, batch: Message) -> StepResult:
        result = await self._again(lambda ranks: ranks.update(batch))
        self._updates = result.version.updates
        return result

    async def token_statistics(self, samples: Message) -> bytes:
        return await self._again(lambda ranks: ranks.token_statistics(samples))

    async def logprobs(self, samples: Sequence[TrainingSample], which: SetName) -> list[Float32]:
        return await self._again(lambda ranks: ranks.logprobs(samples, which))

    async def stage(self) -> None:
        await self._again(lambda ranks: ranks.stage())

    async def write(self, folder: Path) -> None:
        await self._once(lambda ranks: ranks.write(folder), StagedLostError)

    async def export(self, written: Path, folder: Path, channel: Channel) -> None:
        await self._once(lambda ranks: ranks.export(written, folder, channel), StagedLostError)

    async def serve_channel(
        self, channel: Channel, group_epoch: int, num_receivers: int, backend: str, timeout_s: float
    ) -> Rendezvous:
        return await self._again(
            lambda ranks: ranks.serve_channel(channel, group_epoch, num_receivers, backend, timeout_s)
        )

    async def connect_channel(self, rendezvous: Rendezvous) -> None:
        ranks = self._ranks
        await self._once(lambda ranks: ranks.connect_channel(rendezvous), TransportError)
        self._connected[rendezvous.channel] = ranks

    async def announce(
        self, channel: Channel, group_epoch: int, with_checksums: bool, weights: Channel
    ) -> WeightManifest:
        """TransportError, before any rank begins, if the weight group was that of ranks which died."""
        if self._connected.get(channel) is not self._ranks:
            raise TransportError(f"the {channel} weight group was that of ranks which died")
        self._announced[channel] = self._ranks
        return await self._once(
            lambda ranks: ranks.announce(channel, group_epoch, with_checksums, weights), TransportError
        )

    async def send(self, channel: Channel) -> None:
        """TransportError, before any rank begins, if ranks which died had announced it: a transfer of the other channel met their
        death."""
        if self._announced.get(channel) is not self._ranks:
            raise TransportError(f"the {channel} weight group was that of ranks which died")
        await self._once(lambda ranks: ranks.send(channel), TransportError)

    async def close_channel(self, channel: Channel) -> None:
        await self._again(lambda ranks: ranks.close_channel(channel))

    async def close(self) -> None:
        await self._ranks.close()

    async def _again(self, call: Callable[[LearnerGroup], Awaitable[T]]) -> T:
        """A call that may be made on other ranks after a death."""
        while True:
            ranks = self._ranks
            try:
                return await call(ranks)
            except LearnerDiedError as error:
                await self._return(ranks, error)

    async def _once(self, call: Callable[[LearnerGroup], Awaitable[T]], broken: type[RunError]) -> T:
        """A call that has no meaning for other ranks. Raises `broken` when they have taken over."""
        ranks = self._ranks
        try:
            return await call(ranks)
        except LearnerDiedError as error:
            await self._return(ranks, error)
            raise broken(f"{error}; the learner came back without what it had begun") from error

    async def _return(self, dead: LearnerGroup, error: LearnerDiedError) -> None:
        """Puts other ranks in the place of the dead ones, once for all calls that met their death."""
        async with self._returning:
            if self._ranks is not dead:
                return
            if not self._left:
                raise error
            self._left -= 1
            began, self.starting = time.monotonic(), True
            self._say(f"{error}; the learner is started again ({self._most - self._left} of {self._most})")
            ranks = self._make()
            try:
                await dead.close()
                words = await self._restore(ranks, self._updates)
            except BaseException:
                await ranks.close()
                raise
            finally:
                self.starting = False
            self._ranks = ranks
            self._say(f"the learner is back after {time.monotonic() - began:.0f} s: {words}")
