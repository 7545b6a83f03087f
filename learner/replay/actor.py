"""The replay buffer as a Ray actor: decodes what comes, encodes what goes, and leaves everything else to ReplayBuffer.

Bytes are messages of dataflow.codec. Use it through BufferClient; only rollout actors call `accept` themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from corewarding.dataflow.carriers import Completion, TokenStatistics
from corewarding.dataflow.codec import decode_list, encode
from corewarding.dataflow.ids import AskedId, Channel
from corewarding.dataflow.process import keep_log
from corewarding.dataflow.votes import InitialAnswers
from corewarding.learner.replay.buffer import ReplayBuffer
from corewarding.learner.replay.scoring import BufferPlan
from corewarding.questions.gold import GoldAnswers


class BufferActor:
    """The methods of ReplayBuffer, spoken in bytes."""

    def __init__(
        self, plan: BufferPlan, gold: GoldAnswers, state: dict[str, Any] | None = None, log: Path | None = None
    ) -> None:
        keep_log(log)
        self._buffer = ReplayBuffer(plan, gold, state)

    async def know_initial(self, answers: bytes) -> None:
        """answers: a list of InitialAnswers."""
        self._buffer.know_initial(decode_list(answers, InitialAnswers))

    async def room(self) -> int:
        return await self._buffer.room()

    async def admit(self, offered: bytes) -> int:
        """offered: a list of AskedId."""
        return await self._buffer.admit(decode_list(offered, AskedId))

    async def acknowledged(self, channel: Channel, updates: int) -> None:
        await self._buffer.acknowledged(channel, updates)

    async def accept(self, payload: bytes) -> None:
        """payload: a list of Completion, one group. Returning is the acknowledgement."""
        await self._buffer.accept(decode_list(payload, Completion))

    async def give_up(self, asked: bytes) -> bool:
        """asked: a list of one AskedId."""
        (one,) = decode_list(asked, AskedId)
        return await self._buffer.give_up(one)

    async def take(self, update: int) -> tuple[int, bool, bytes]:
        """(number of samples, True, TrainBatch), or (number of samples, False, list of unscored TrainingSample) if the rule needs
        token statistics; then `score` follows."""
        await self._buffer.take(update)
        if self._buffer.needs_statistics:
            unscored = self._buffer.unscored(update)
            return len(unscored), False, encode(unscored)
        batch = self._buffer.batch(update)
        return len(batch.samples), True, encode(batch)

    async def halt(self) -> int:
        return self._buffer.halt()

    async def score(self, update: int, statistics: bytes) -> tuple[int, bytes]:
        """(number of samples, TrainBatch). statistics: the list of TokenStatistics of what `take` returned."""
        batch = self._buffer.batch(update, decode_list(statistics, TokenStatistics))
        return len(batch.samples), encode(batch)

    async def report(self, update: int) -> bytes:
        """The UpdateReport of an update's batch; once per update."""
        return encode(self._buffer.report(update))

    async def progress(self) -> bytes:
        """A BufferProgress."""
        return encode(self._buffer.progress())

    async def answers_read(self) -> dict[str, int]:
        return self._buffer.answers_read()

    async def state(self) -> dict[str, Any]:
        return self._buffer.state()


def start_buffer(
    plan: BufferPlan,
    gold: GoldAnswers,
    state: dict[str, Any] | None,
    *,
    runtime_env: dict[str, Any],
    log: Path | None = None,
) -> ActorHandle[BufferActor]:
    """Starts the buffer's process. state: of a checkpoint, or None. runtime_env: Ray's, of the process. log: its file."""
    remote: Any = ray.remote(BufferActor)  # Ray's annotations lack max_concurrency
    options = remote.options(num_cpus=0, max_concurrency=1000, runtime_env=runtime_env)
    actor: ActorHandle[BufferActor] = options.remote(plan, gold, state, log)
    return actor
