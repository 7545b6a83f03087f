"""Base of engines that are asked over asyncio: one asyncio task per completion, at most `engine.slots` of them at a time.

A subclass samples one completion and swaps weights. This class queues, counts, aborts and pauses, and makes a swap wait
for running completions when `inflight.mode` is drain.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from corewarding.actors.engine import EngineContext, EngineError, EngineStats, SampledSequence, check_length
from corewarding.dataflow.carriers import RolloutTask
from corewarding.dataflow.ids import GroupId, Version
from corewarding.dataflow.weights import Rendezvous, WeightManifest

if TYPE_CHECKING:
    from torch import Tensor

    from corewarding.weights.receiver import WeightReceiver


class RequestedEngine(ABC):
    """See actors.engine.RolloutEngine for what each method promises. Used from one event loop."""

    def __init__(self, context: EngineContext) -> None:
        self._version, self._max_model_len, self._inflight = context.version, context.max_model_len, context.inflight
        self._receiver: WeightReceiver | None = None  # made when weights are first sent
        self._slots = asyncio.Semaphore(context.settings.slots)
        self._may_start, self._none_running, self._going = asyncio.Event(), asyncio.Event(), asyncio.Event()
        for event in (self._may_start, self._none_running, self._going):
            event.set()
        self._swapping = asyncio.Lock()
        self._tasks: dict[tuple[GroupId, int], list[asyncio.Task[SampledSequence]]] = {}
        self._tokens = self._prefilled = self._steps = self._running = self._queued = 0
        self._swap_s = self._busy_s = 0.0
        self._since = self._started = time.monotonic()

    # ---- what a subclass provides ------------------------------------------------------------------------------------

    @abstractmethod
    async def sample(self, task: RolloutTask, index: int) -> SampledSequence:
        """Samples completion `index` of the task; it holds a slot. Adds to _tokens, _prefilled and _steps."""

    @abstractmethod
    async def swap(self, weights: Mapping[str, Tensor], version: Version) -> None:
        """Takes new weights, treats running completions as `inflight.mode` says and sets _version."""

    @abstractmethod
    def make_receiver(self) -> WeightReceiver: ...

    async def end_request(self, task: RolloutTask, index: int) -> None:  # noqa: B027 (not every engine has a request to end)
        """Ends completion `index` of an aborted task outside this process."""

    # ---- the protocol ------------------------------------------------------------------------------------------------

    @property
    def version(self) -> Version:
        return self._version

    @property
    def max_model_len(self) -> int:
        return self._max_model_len

    async def generate(self, task: RolloutTask) -> AsyncIterator[SampledSequence]:
        check_length(task, self._max_model_len)
        key = (task.id, task.attempt)
        if key in self._tasks:
            raise EngineError(f"task {task.id} is running already")
        sampling = [asyncio.create_task(self._in_slot(task, index)) for index in range(task.group_size)]
        self._tasks[key] = sampling
        try:
            for finished in asyncio.as_completed(sampling):
                try:
                    sequence = await finished
                except asyncio.CancelledError:
                    if self._tasks.get(key) is sampling:  # not aborted: the caller was cancelled
                        raise
                    raise EngineError(f"task {task.id}, attempt {task.attempt}, was aborted") from None
                yield sequence
        finally:
            if self._tasks.get(key) is sampling:
                del self._tasks[key]
            await _end(sampling)

    async def abort(self, task: RolloutTask) -> None:
        for index, sampling in enumerate(self._tasks.pop((task.id, task.attempt), [])):
            if not sampling.done():
                sampling.cancel()
                await self.end_request(task, index)

    async def pause(self) -> None:
        self._going.clear()

    async def resume(self) -> None:
        self._going.set()

    async def join(self, rendezvous: Rendezvous, rank: int) -> None:
        if self._receiver is None:
            self._receiver = self.make_receiver()
        await asyncio.to_thread(self._receiver.join, rendezvous, rank)

    async def begin(self, manifest: WeightManifest) -> None:
        self._joined().begin(manifest)

    async def receive(self) -> None:
        await asyncio.to_thread(self._joined().receive)

    async def commit(self, version: Version) -> None:
        await self.load_weights(self._joined().take(version), version)

    async def load_weights(self, weights: Mapping[str, Tensor], version: Version) -> None:
        """Commits weights that are in this process already."""
        async with self._swapping:
            if self._inflight == "drain":
                await self._drain(version)
            began = time.monotonic()
            await self.swap(weights, version)
            self._may_start.set()
            self._swap_s += time.monotonic() - began

    async def abort_update(self) -> None:
        if self._receiver is not None:
            await asyncio.to_thread(self._receiver.abort)

    def stats(self) -> EngineStats:
        self._account(0)
        return EngineStats(
            generated_tokens=self._tokens,
            prefill_tokens=self._prefilled,
            steps=self._steps,
            busy_s=self._busy_s,
            idle_s=time.monotonic() - self._started - self._busy_s,
            swap_s=self._swap_s,
            running=self._running,
            queued=self._queued,
        )

    async def close(self) -> None:
        for key in list(self._tasks):
            for sampling in self._tasks.pop(key):
                sampling.cancel()
        await self.abort_update()

    # ------------------------------------------------------------------------------------------------------------------

    @property
    def _paused(self) -> bool:
        return not self._going.is_set()

    def _joined(self) -> WeightReceiver:
        if self._receiver is None:
            raise EngineError("no weight group was joined")
        return self._receiver

    async def _drain(self, version: Version) -> None:
        if self._paused and self._running:
            raise EngineError(f"{version} cannot be committed under inflight.mode drain while the engine is paused")
        self._may_start.clear()
        await self._none_running.wait()

    async def _in_slot(self, task: RolloutTask, index: int) -> SampledSequence:
        """Samples when a slot is free; no completion starts while the engine drains."""
        self._queued += 1
        queued = True
        try:
            async with self._slots:
                while not self._may_start.is_set():  # another swap may have begun before this task woke up
                    await self._may_start.wait()
                queued = False
                self._queued -= 1
                self._account(+1)
                try:
                    return await self.sample(task, index)
                finally:
                    self._account(-1)
        finally:
            self._queued -= queued

    def _account(self, change: int) -> None:
        """Changes `running`; the time since the last change counts as busy if anything ran."""
        now = time.monotonic()
        if self._running:
            self._busy_s += now - self._since
        self._since = now
        self._running += change
        if self._running:
            self._none_running.clear()
        else:
            self._none_running.set()


async def _end(sampling: list[asyncio.Task[SampledSequence]]) -> None:
    """Cancels what has not ended and waits for it; asyncio then reports no error as unseen."""
    unfinished = [task for task in sampling if not task.done()]
    for task in unfinished:
        task.cancel()
    if unfinished:
        await asyncio.gather(*unfinished, return_exceptions=True)
    for task in sampling:
        if not task.cancelled():
            task.exception()
