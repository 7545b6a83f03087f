"""The replay buffer as the rest of the program knows it: typed methods around the actor's handle."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from corewarding.dataflow.carriers import BufferProgress, UpdateReport
from corewarding.dataflow.codec import decode_as, encode
from corewarding.dataflow.errors import RunError
from corewarding.dataflow.ids import AskedId, Channel
from corewarding.dataflow.process import death_of
from corewarding.dataflow.votes import InitialAnswers
from corewarding.learner.replay.actor import BufferActor

T = TypeVar("T")
BatchRef: TypeAlias = "ray.ObjectRef[bytes]"
"""Ray's reference to an encoded TrainBatch or list of TrainingSample. The bytes go from the buffer straight to the learner's ranks."""


class BufferDiedError(RunError):
    """The replay buffer's process ended. The run can be resumed from its last checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBatch:
    """One update's samples and what the buffer reports of them."""

    num_samples: int
    batch: BatchRef
    report: Awaitable[UpdateReport]  # is made while the learner updates


class BufferClient:
    """All methods raise BufferDiedError if the buffer's process has ended."""

    def __init__(
        self,
        actor: ActorHandle[BufferActor],
        *,
        log: Path | None = None,
        said: Callable[[str], None] = lambda text: None,
    ) -> None:
        """log: of the buffer's process. said: told when the buffer has died and come back from its journal."""
        self._actor: Any = actor
        self._log = log
        self._calls = itertools.count(1)
        self._said, self._came_back = said, ""

    async def know_initial(self, answers: Sequence[InitialAnswers]) -> None:
        """The initial model's answers, for rules that need them; before any question is admitted."""
        await self._answer(self._actor.know_initial.remote(encode(list(answers))))

    async def room(self) -> int:
        """Waits until at least one question may start; returns how many may."""
        return await self._answer(self._actor.room.remote())

    async def admit(self, offered: Sequence[AskedId]) -> int:
        """Admits the first of the offered questions, as many as there is room for; returns how many."""
        return await self._answer(self._actor.admit.remote(next(self._calls), encode(list(offered))))

    async def give_up(self, asked: AskedId) -> bool:
        """Drops a question of which a task fails for good; another may start. False if the question has left already."""
        return await self._answer(self._actor.give_up.remote(encode([asked])))

    async def acknowledged(self, channel: Channel, updates: int) -> None:
        """Tells the buffer that every live engine of `channel` has acknowledged the weights after `updates` updates."""
        await self._answer(self._actor.acknowledged.remote(channel, updates))

    async def take(self, update: int, token_statistics: Callable[[BatchRef], Awaitable[bytes]]) -> TakenBatch:
        """Waits until update number `update` can be made, and takes its batch.

        token_statistics: from a reference to a list of TrainingSample to an encoded list of TokenStatistics; it is called only if
        the reward rule needs them.
        """
        num, is_scored, batch = self._actor.take.options(num_returns=3).remote(update)
        if not await self._answer(is_scored):
            statistics = await token_statistics(batch)
            num, batch = self._actor.score.options(num_returns=2).remote(update, statistics)
        num_samples = await self._answer(num)
        return TakenBatch(num_samples=num_samples, batch=batch, report=asyncio.create_task(self._report(update)))

    async def halt(self) -> int:
        """Lets no further update be taken; returns the number of those taken. A `take` of a later one never returns: cancel it."""
        return await self._answer(self._actor.halt.remote())

    async def updated(self, update: int, digest: str) -> None:
        """Tells the buffer that the learner made `update`, and the digest of its weights after it."""
        await self._answer(self._actor.updated.remote(update, digest))

    async def keep_from(self, segment: int) -> None:
        """Lets the journal forget what is older than this segment."""
        await self._answer(self._actor.keep_from.remote(segment))

    async def progress(self) -> BufferProgress:
        """How far the buffer has come."""
        progress = decode_as(await self._answer(self._actor.progress.remote()), BufferProgress)
        if progress.came_back != self._came_back:
            self._came_back = progress.came_back
            self._said(f"the replay buffer's process ended; {progress.came_back}")
        return progress

    async def answers_read(self) -> dict[str, int]:
        """How often the data set's answers were read so far, by reader."""
        return await self._answer(self._actor.answers_read.remote())

    async def state(self, cursor: dict[str, Any]) -> dict[str, Any]:
        """For a checkpoint between two updates; JSON-ready. cursor: of the questions, at this moment."""
        return await self._answer(self._actor.state.remote(cursor))

    async def _report(self, update: int) -> UpdateReport:
        return decode_as(await self._answer(self._actor.report.remote(update)), UpdateReport)

    async def _answer(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except RayActorError as error:
            raise BufferDiedError(f"the replay buffer died: {death_of(error, self._log)}") from error
