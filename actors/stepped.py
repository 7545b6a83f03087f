"""Base of engines that sample in a thread of their own: callers are on asyncio, commands run between two steps.

A subclass admits, steps, swaps and drops. Commands run only between two steps: requests enter, weights are committed, tasks are
aborted. An error in the thread reaches every waiting caller.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from torch import Tensor

from corewarding.actors.engine import (
    EngineContext,
    EngineError,
    EngineLostError,
    EngineStats,
    SampledSequence,
    check_length,
    stream_key,
)
from corewarding.dataflow.carriers import RolloutTask
from corewarding.dataflow.ids import GroupId, Version
from corewarding.dataflow.weights import Rendezvous, WeightManifest
from corewarding.weights.receiver import WeightReceiver


@dataclass(eq=False)
class Request:
    """One task and the queue its caller reads."""

    task: RolloutTask
    loop: asyncio.AbstractEventLoop
    results: asyncio.Queue[SampledSequence | EngineError] = field(default_factory=asyncio.Queue)
    num_left: int = 0

    def __post_init__(self) -> None:
        self.num_left = self.task.group_size

    def deliver(self, item: SampledSequence | EngineError) -> None:
        self.loop.call_soon_threadsafe(self.results.put_nowait, item)


@dataclass(eq=False)
class Pending:
    """One sequence that is queued or running."""

    request: Request
    sample_index: int
    started_s: float = 0.0

    @property
    def task(self) -> RolloutTask:
        return self.request.task

    @property
    def stream_key(self) -> int:
        """64-bit key of its draws."""
        return stream_key(self.task.run_seed, self.task.id.completion(self.sample_index))


class SteppedEngine(ABC):
    """See actors.engine.RolloutEngine for what each method promises. A subclass calls _start() last in its constructor."""

    def __init__(self, name: str, context: EngineContext, weights: WeightReceiver) -> None:
        """name: of the engine, for messages."""
        self._name, self._weights = name, weights
        self._version, self._max_model_len, self._inflight = context.version, context.max_model_len, context.inflight
        self._waiting: deque[Pending] = deque()
        self._requests: dict[tuple[GroupId, int], Request] = {}
        self._commands: queue.SimpleQueue[tuple[Callable[[], None], Future[None]]] = queue.SimpleQueue()
        self._gate = threading.Lock()  # no command enters the queue after the thread last looked
        self._ended = self._paused = self._closed = False
        self._failure: BaseException | None = None
        self._tokens = self._prefilled = self._steps = 0
        self._busy_s = self._idle_s = self._swap_s = 0.0
        self._thread = threading.Thread(target=self._run, name=f"{name}-engine", daemon=True)

    # ---- what a subclass provides, called in the thread --------------------------------------------------------------

    @abstractmethod
    def step(self) -> None:
        """Starts queued sequences while there is room, then samples one token for every running sequence."""

    @abstractmethod
    def num_running(self) -> int: ...

    @abstractmethod
    def drop(self, request: Request) -> None:
        """Forgets the request's running sequences."""

    @abstractmethod
    def swap(self, weights: Mapping[str, Tensor], version: Version) -> None:
        """Takes new weights and treats running sequences as `inflight.mode` says; the next token is stamped `version`."""

    def stop(self) -> None:  # noqa: B027 (not every engine has something to stop)
        """Called last, also when the thread fails."""

    def _start(self) -> None:
        self._thread.start()

    # ---- called from asyncio -----------------------------------------------------------------------------------------

    @property
    def version(self) -> Version:
        return self._version

    @property
    def max_model_len(self) -> int:
        return self._max_model_len

    async def generate(self, task: RolloutTask) -> AsyncIterator[SampledSequence]:
        check_length(task, self._max_model_len)
        request = Request(task, asyncio.get_running_loop())
        await self._call(lambda: self._enqueue(request))
        for _ in range(task.group_size):
            item = await request.results.get()
            if isinstance(item, EngineError):
                raise item
            yield item

    async def abort(self, task: RolloutTask) -> None:
        await self._call(lambda: self._abort(_key(task)))

    async def pause(self) -> None:
        await self._call(lambda: setattr(self, "_paused", True))

    async def resume(self) -> None:
        await self._call(lambda: setattr(self, "_paused", False))

    async def join(self, rendezvous: Rendezvous, rank: int) -> None:
        await asyncio.to_thread(self._weights.join, rendezvous, rank)

    async def begin(self, manifest: WeightManifest) -> None:
        self._weights.begin(manifest)

    async def receive(self) -> None:
        await asyncio.to_thread(self._weights.receive)

    async def commit(self, version: Version) -> None:
        await self.load_weights(self._weights.take(version), version)

    async def load_weights(self, weights: Mapping[str, Tensor], version: Version) -> None:
        """Commits weights that are in this process already."""
        await self._call(lambda: self.swap(weights, version))

    async def abort_update(self) -> None:
        await asyncio.to_thread(self._weights.abort)

    def stats(self) -> EngineStats:
        return EngineStats(
            generated_tokens=self._tokens,
            prefill_tokens=self._prefilled,
            steps=self._steps,
            busy_s=self._busy_s,
            idle_s=self._idle_s,
            swap_s=self._swap_s,
            running=self.num_running(),
            queued=len(self._waiting),
        )

    async def close(self) -> None:
        if not (self._closed or self._ended):
            await self._call(lambda: setattr(self, "_closed", True))
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._weights.abort)

    async def _call(self, command: Callable[[], None]) -> None:
        """Runs `command` in the engine's thread between two steps."""
        done: Future[None] = Future()

        def run() -> None:
            try:
                command()
            except EngineError as error:  # refused; the thread goes on
                done.set_exception(error)
            except BaseException as error:
                done.set_exception(EngineLostError(f"the {self._name} engine failed: {error!r}"))
                raise
            else:
                done.set_result(None)

        with self._gate:
            if self._ended or self._closed:
                raise EngineLostError(f"the {self._name} engine has stopped") from self._failure
            self._commands.put((run, done))
        await asyncio.wrap_future(done)

    # ---- the engine's thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closed:
                self._take_commands()
                if self._closed or self._paused or not self._has_work():
                    continue
                began = time.perf_counter()
                self.step()
                self._busy_s += time.perf_counter() - began
        except BaseException as error:
            self._failure = error
            self._end_all(EngineLostError(f"the {self._name} engine failed: {error!r}"))
            raise
        finally:
            self.stop()
        self._end_all(EngineError(f"the {self._name} engine was closed"))

    def _has_work(self) -> bool:
        return bool(self.num_running() or self._waiting)

    def _take_commands(self) -> None:
        """Runs all queued commands; waits for one when there is nothing else to do."""
        if self._paused or not self._has_work():
            began = time.perf_counter()
            command, _ = self._commands.get()
            self._idle_s += time.perf_counter() - began
            command()
        while not self._commands.empty():
            self._commands.get()[0]()

    def _end_all(self, error: EngineError) -> None:
        """Every caller that waits, and every later one, gets `error`."""
        with self._gate:
            self._ended = True
            while not self._commands.empty():
                self._commands.get()[1].set_exception(error)
        for request in self._requests.values():
            request.deliver(error)
        self._requests.clear()

    def _enqueue(self, request: Request) -> None:
        key = _key(request.task)
        if key in self._requests:
            raise EngineError(f"task {request.task.id} is running already")
        self._requests[key] = request
        self._waiting.extend(Pending(request, index) for index in range(request.task.group_size))

    def _abort(self, key: tuple[GroupId, int]) -> None:
        request = self._requests.pop(key, None)
        if request is None:
            return
        self._waiting = deque(pending for pending in self._waiting if pending.request is not request)
        self.drop(request)
        request.deliver(EngineError(f"task {request.task.id} was aborted"))

    def _deliver(self, pending: Pending, sequence: SampledSequence) -> None:
        """Hands a finished sequence to its caller."""
        request = pending.request
        request.deliver(sequence)
        request.num_left -= 1
        if request.num_left == 0:
            del self._requests[_key(request.task)]

    def _drain(self, version: Version, step: Callable[[], None]) -> None:
        """Steps until no sequence runs; `step` must start none."""
        if self._paused and self.num_running():
            raise EngineError(f"{version} cannot be committed under inflight.mode drain while the engine is paused")
        began = time.perf_counter()
        while self.num_running():
            step()
        self._busy_s += time.perf_counter() - began


def _key(task: RolloutTask) -> tuple[GroupId, int]:
    return task.id, task.attempt
