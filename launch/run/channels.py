"""Weights on both channels, off the learner's path: it waits until they have left it, and no longer.

Teacher before policy, in sending and in telling the buffer: whoever is admitted under a new policy version finds the teacher that
goes with it. A publication begins when the one before it has been acknowledged by all engines.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from corewarding.dataflow.ids import Channel, Version
from corewarding.dataflow.metrics import Metrics
from corewarding.dataflow.spans import Span
from corewarding.launch.report.trace import TraceLog
from corewarding.launch.run.publisher import Publisher, PublishResult
from corewarding.learner.replay.client import BufferClient


class WeightChannels:
    """Used from the controller's event loop. `buffer` is told a version when every live engine of the channel has it."""

    def __init__(self, publishers: Mapping[Channel, Publisher], buffer: BufferClient, trace: TraceLog) -> None:
        self._publishers, self._buffer, self._trace = publishers, buffer, trace
        self.last: asyncio.Task[Metrics] | None = None  # the last publication; its metrics when all have acknowledged

    async def send(self, due: Sequence[tuple[Channel, Version]]) -> None:
        """Returns when the learner may update again. Raises what kept the publication before this one from ending."""
        await self.acknowledged()
        transfers: list[tuple[Channel, Version, float, asyncio.Task[PublishResult]]] = []
        for channel, version in due:
            began, sent = time.time(), asyncio.Event()
            transfer = asyncio.create_task(self._publishers[channel].publish(version, sent))
            leaving = asyncio.create_task(sent.wait())
            await asyncio.wait({transfer, leaving}, return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
            transfers.append((channel, version, began, transfer))
        self.last = asyncio.create_task(self._finish(transfers))

    async def acknowledged(self) -> None:
        """Returns when the engines have what was sent last; raises what kept it from them."""
        if self.last is not None:
            await self.last

    async def _finish(
        self, transfers: Sequence[tuple[Channel, Version, float, asyncio.Task[PublishResult]]]
    ) -> Metrics:
        scalars: dict[str, float] = {}
        for channel, version, began, transfer in transfers:
            result = await transfer
            await self._buffer.acknowledged(channel, version.updates)
            ended = time.time()
            scalars |= {
                f"sync/{channel}_s": ended - began,
                f"sync/{channel}_mb": result.bytes / 2**20,
                f"sync/{channel}_num_acknowledged": float(result.num_acknowledged),
            }
            self._trace.write([Span(f"weights to {channel}", f"publish {version.updates}", began, ended)])
        return Metrics(scalars=scalars)
