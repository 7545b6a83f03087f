"""Publishes weights on both channels beside the training: the learner waits until they have left it, and no longer.

Both channels are published at once. Invariants: the teacher is acknowledged to the buffer before the policy, so a question admitted
under a new policy version finds the teacher that belongs to it. A publication starts when all engines have acknowledged the last one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from corewarding.dataflow.errors import RunError
from corewarding.dataflow.ids import Channel, Version
from corewarding.dataflow.metrics import Metrics
from corewarding.dataflow.spans import Span, now_s
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.run.protocols import Buffer, ChannelPublisher, Learner, PublishResult

log = logging.getLogger(__name__)
ORDER: tuple[Channel, ...] = ("teacher", "policy")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Publication:
    """One channel's publication under way."""

    channel: Channel
    version: Version
    began_s: float
    result: asyncio.Task[PublishResult]
    leaving: asyncio.Task[None]  # done when the weights have left the learner


class WeightChannels:
    """Both channels of a run. Used from the controller's event loop."""

    def __init__(
        self,
        publishers: Mapping[Channel, ChannelPublisher],
        *,
        learner: Learner,
        buffer: Buffer,
        trace: Callable[[Sequence[Span]], None],
        every: Mapping[Channel, int],
    ) -> None:
        """every: updates between two publications of a channel; 0: only the first weights."""
        self._publishers, self._learner, self._buffer, self._trace = publishers, learner, buffer, trace
        self._every = every
        self._acknowledged: dict[Channel, Version] = {}
        self.last: asyncio.Task[Metrics] | None = None
        """The last publication: its metrics, when all engines have acknowledged it."""

    def due(self, updates: int) -> list[Channel]:
        """Channels to publish after this many updates."""
        return [
            channel
            for channel in ORDER
            if channel in self._publishers and self._every[channel] > 0 and updates % self._every[channel] == 0
        ]

    def version(self, channel: Channel) -> Version:
        """The version that all engines of the channel acknowledged last. KeyError before the first."""
        return self._acknowledged[channel]

    async def publish(self, channels: Sequence[Channel] = ORDER) -> None:
        """Publishes the learner's present weights on these channels; returns when the learner may update again.

        Raises the error of the publication before this one.
        """
        await self.acknowledged()
        asked = [channel for channel in ORDER if channel in channels and channel in self._publishers]
        versions = await asyncio.gather(*(self._learner.version(channel) for channel in asked))
        publications = [self._begin(channel, version) for channel, version in zip(asked, versions, strict=True)]
        self.last = asyncio.create_task(self._acknowledge(publications), name="publication")
        try:
            for one in publications:
                await asyncio.wait({one.result, one.leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in publications:
                one.leaving.cancel()

    def _begin(self, channel: Channel, version: Version) -> _Publication:
        sent = asyncio.Event()
        return _Publication(
            channel=channel,
            version=version,
            began_s=now_s(),
            result=asyncio.create_task(self._publishers[channel].publish(version, sent), name=f"publish {channel}"),
            leaving=asyncio.create_task(_set(sent)),
        )

    async def lend(self) -> None:
        """Gives the teacher's engines the policy's present weights, for good; returns when they have them, or when that has failed.

        For the end of a run, when nothing is sampled from the teacher any more and its engines may be missed: a RunError is a warning.
        The buffer is not told, because what it counts is the teacher's own versions, with which a resumed run goes on.
        """
        await self.acknowledged()
        publisher = self._publishers["teacher"]
        publisher.carry("policy")
        try:
            await publisher.publish(await self._learner.version("policy"))
        except RunError as error:  # the policy's engines have their weights, and every update is saved
            publisher.carry("teacher")
            log.warning("the teacher's engines do not help to evaluate: %s", error)

    async def acknowledged(self) -> None:
        """Returns when the engines have the last publication. Raises its error."""
        if self.last is not None:
            await asyncio.shield(self.last)  # whoever waits may be cancelled; the publication goes on

    async def _acknowledge(self, publications: Sequence[_Publication]) -> Metrics:
        scalars: dict[str, float] = {}
        try:
            for one in publications:
                result = await one.result
                await self._buffer.acknowledged(one.channel, one.version.updates)
                self._acknowledged[one.channel] = one.version
                ended_s = now_s()
                scalars |= {
                    f"sync/{one.channel}_s": ended_s - one.began_s,
                    f"sync/{one.channel}_mb": result.bytes / 2**20,
                    f"sync/{one.channel}_num_acknowledged": float(result.num_acknowledged),
                }
                name = f"publish {one.version.updates}"
                self._trace([Span(f"weights to {one.channel}", name, one.began_s, ended_s)])
        finally:
            for one in publications:
                one.result.cancel()  # does nothing to one that is done
        return Metrics(scalars=scalars)


async def _set(event: asyncio.Event) -> None:
    await event.wait()


def intervals(config: TrainConfig) -> dict[Channel, int]:
    """Updates between two publications of each channel; 0: never again after the first."""
    return {
        "teacher": 0 if config.teacher.freeze else config.teacher.publish_every,
        "policy": config.publish.every_updates,
    }
