"""The embedded RolloutEngine: one thread that admits, decodes and swaps; asyncio callers talk to it through a queue.

Between two decode steps, and only there, commands are taken: weights are committed, tasks aborted. What a commit makes of the
running sequences is `inflight.mode`: `recompute` rebuilds their KV cache under the new weights before the next token, `keep_kv`
lets them go on over the old one, `drain` first steps until none is left. An error in the thread reaches every caller that waits.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from actors.embedded.model import Decoder
from actors.embedded.sampling import sample, uniforms
from actors.embedded.slots import Pending, Slots
from actors.embedded.weights import WeightReceiver
from actors.engine import EngineError, EngineStats, SampledSequence
from actors.settings import EngineSettings, InflightMode
from dataflow.types import Rendezvous, RolloutTask, Version, WeightManifest


@dataclass(eq=False)
class _Request:
    """One task's caller: where its sequences go."""

    task: RolloutTask
    loop: asyncio.AbstractEventLoop
    results: asyncio.Queue[SampledSequence | EngineError] = field(default_factory=asyncio.Queue)
    num_left: int = 0

    def __post_init__(self) -> None:
        self.num_left = self.task.group_size

    def deliver(self, item: SampledSequence | EngineError) -> None:
        self.loop.call_soon_threadsafe(self.results.put_nowait, item)


class EmbeddedEngine:
    """See actors.engine.RolloutEngine for what each method promises."""

    def __init__(
        self,
        model_path: str | Path,
        *,
        settings: EngineSettings,
        max_model_len: int,
        device: torch.device,
        eos_token_ids: Iterable[int],
        incarnation: int = 0,
        initial_updates: int = 0,
        inflight: InflightMode = "recompute",
        ignore_eos: bool = False,
    ) -> None:
        torch.set_num_threads(settings.threads)
        self._device, self._max_model_len = device, max_model_len
        self._prefill_tokens = 1 if settings.deterministic else settings.prefill_tokens  # 1: each prompt alone
        self._inflight = inflight
        dtype = getattr(torch, settings.dtype)
        self._decoder = Decoder(
            model_path,
            slots=settings.slots,
            max_len=max_model_len,
            dtype=dtype,
            device=device,
            fixed_shape=settings.deterministic,
        )
        self._slots = Slots(settings.slots, max_model_len)
        self._eos = np.array([] if ignore_eos else sorted(eos_token_ids), np.int64)
        self._weights = WeightReceiver(self._decoder.parameters(), device)
        self._version = Version(incarnation=incarnation, updates=initial_updates)
        self._waiting: deque[Pending] = deque()
        self._commands: queue.SimpleQueue[tuple[Callable[[], None], Future[None]]] = queue.SimpleQueue()
        self._gate = threading.Lock()  # no command slips in behind the thread's last look at the queue
        self._ended = False
        self._paused = self._closed = False
        self._failure: BaseException | None = None
        self._requests: dict[tuple[str, int], _Request] = {}
        self._tokens = self._prefilled = self._steps = 0
        self._busy_s = self._idle_s = self._swap_s = 0.0
        self._thread = threading.Thread(target=self._run, name="embedded-engine", daemon=True)
        self._thread.start()

    # ---- called from asyncio --------------------------------------------------------------------------------------

    @property
    def version(self) -> Version:
        return self._version

    @property
    def max_model_len(self) -> int:
        return self._max_model_len

    async def generate(self, task: RolloutTask) -> AsyncIterator[SampledSequence]:
        total = len(task.prompt_token_ids) + task.max_new_tokens
        if total > self._max_model_len:
            raise EngineError(
                f"task {task.group}: {len(task.prompt_token_ids)} prompt tokens + rollout.max_new_tokens "
                f"{task.max_new_tokens} exceed engine.max_model_len {self._max_model_len}"
            )
        request = _Request(task, asyncio.get_running_loop())
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
        staged = self._weights.take(version)
        await self._call(lambda: self._swap(staged, version))

    async def load_weights(self, weights: Mapping[str, Tensor], version: Version) -> None:
        """Commits weights that are in this process already."""
        await self._call(lambda: self._swap(weights, version))

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
            running=self._slots.count,
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
                done.set_exception(EngineError(f"the embedded engine failed: {error!r}"))
                raise
            else:
                done.set_result(None)

        with self._gate:
            if self._ended or self._closed:
                raise EngineError("the embedded engine has stopped") from self._failure
            self._commands.put((run, done))
        await asyncio.wrap_future(done)

    # ---- the engine's thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while not self._closed:
                    self._take_commands()
                    if self._closed or self._paused or not (self._slots.count or self._waiting):
                        continue
                    began = time.perf_counter()
                    self._admit()
                    self._decode()
                    self._busy_s += time.perf_counter() - began
        except BaseException as error:
            self._failure = error
            self._end_all(EngineError(f"the embedded engine failed: {error!r}"))
            raise
        self._end_all(EngineError("the embedded engine was closed"))

    def _take_commands(self) -> None:
        """Everything that is queued; waits for a command when there is nothing else to do."""
        if self._paused or not (self._slots.count or self._waiting):
            began = time.perf_counter()
            command, _ = self._commands.get()
            self._idle_s += time.perf_counter() - began
            command()
        while not self._commands.empty():
            self._commands.get()[0]()

    def _end_all(self, error: EngineError) -> None:
        """Whoever waits, or was about to ask, gets `error`."""
        with self._gate:
            self._ended = True
            while not self._commands.empty():
                self._commands.get()[1].set_exception(error)
        for request in self._requests.values():
            request.deliver(error)
        self._requests.clear()

    def _enqueue(self, request: _Request) -> None:
        key = _key(request.task)
        if key in self._requests:
            raise EngineError(f"task {request.task.group} is running already")
        self._requests[key] = request
        self._waiting.extend(Pending(request.task, index, request) for index in range(request.task.group_size))

    def _abort(self, key: tuple[str, int]) -> None:
        request = self._requests.pop(key, None)
        if request is None:
            return
        self._waiting = deque(p for p in self._waiting if p.request is not request)
        for row in reversed(range(self._slots.count)):
            owner = self._slots.owner[row]
            if owner is not None and owner.request is request:
                self._free(row)
        request.deliver(EngineError(f"task {request.task.group} was aborted"))

    def _admit(self) -> None:
        """Fills free slots; the sequences of a group that start together share one prefill of their prompt."""
        while self._waiting and self._slots.num_free:
            first = self._slots.count
            prompts: list[np.ndarray] = []
            sources: list[int] = []
            longest, before = 0, None
            while self._waiting and self._slots.num_free:
                pending = self._waiting[0]
                if pending.request is not before:
                    length = max(longest, len(pending.task.prompt_token_ids))
                    if prompts and length * (len(prompts) + 1) > self._prefill_tokens:
                        break
                    prompts.append(pending.task.prompt_token_ids)
                    longest, before = length, pending.request
                self._waiting.popleft()
                pending.started_s = time.time()
                self._slots.take(pending)
                sources.append(len(prompts) - 1)
            hidden = self._decoder.prefill(prompts, np.arange(first, self._slots.count), np.array(sources))
            self._prefilled += sum(map(len, prompts))
            self._emit(self._decoder.logits(hidden)[sources], slice(first, self._slots.count))

    def _decode(self) -> None:
        """One token for every running sequence."""
        slots, n = self._slots, self._slots.count
        if n == 0:
            return
        logits = self._decoder.step(slots.last_tokens(), slots.length[:n])
        slots.length[:n] += 1
        self._steps += 1
        self._emit(logits, slice(0, n))

    def _emit(self, logits: Tensor, rows: slice) -> None:
        """Samples a token for each of `rows` from logits [rows, V], records it and lets finished sequences go."""
        slots = self._slots
        draws = torch.from_numpy(uniforms(slots.key[rows], slots.num_new[rows])).to(self._device)
        temperatures = torch.from_numpy(slots.temperature[rows].copy()).to(self._device)
        chosen, logprobs = sample(logits, temperatures, draws)
        tokens = chosen.cpu().numpy()
        slots.record(rows, tokens, logprobs.cpu().numpy(), self._version.updates)
        self._tokens += len(tokens)
        stopped = np.isin(tokens, self._eos)
        ended = np.flatnonzero(stopped | (slots.num_new[rows] >= slots.max_new[rows]))
        for offset in reversed(ended.tolist()):
            self._finish(rows.start + offset, stopped=bool(stopped[offset]))

    def _finish(self, row: int, *, stopped: bool) -> None:
        owner = self._slots.owner[row]
        assert owner is not None
        request = owner.request
        assert isinstance(request, _Request)
        request.deliver(self._slots.sequence(row, "stop" if stopped else "length", time.time()))
        self._free(row)
        request.num_left -= 1
        if request.num_left == 0:
            del self._requests[_key(request.task)]

    def _free(self, row: int) -> None:
        moved = self._slots.release(row)
        if moved != row:
            self._decoder.move(moved, row, int(self._slots.length[row]))

    def _swap(self, weights: Mapping[str, Tensor], version: Version) -> None:
        """New weights in; running sequences as `inflight.mode` says."""
        if self._inflight == "drain":
            self._drain(version)
        began = time.perf_counter()
        self._decoder.load(weights)
        if self._inflight == "recompute":
            self._rebuild()
        self._version = version
        self._swap_s += time.perf_counter() - began

    def _drain(self, version: Version) -> None:
        """Steps until no sequence runs; admits none."""
        if self._paused and self._slots.count:
            raise EngineError(f"{version} cannot be committed under inflight.mode drain while the engine is paused")
        began = time.perf_counter()
        while self._slots.count:
            self._decode()
        self._busy_s += time.perf_counter() - began

    def _rebuild(self) -> None:
        """Every running sequence's cache under the present weights, longest first."""
        order = sorted(range(self._slots.count), key=lambda row: int(self._slots.length[row]))
        while order:
            longest = int(self._slots.length[order[-1]])
            rows = [order.pop() for _ in range(min(len(order), max(1, self._prefill_tokens // longest)))]
            prefixes = [self._slots.cached_tokens(row) for row in rows]
            self._decoder.prefill(prefixes, np.array(rows), np.arange(len(rows)))
            self._prefilled += sum(map(len, prefixes))


def _key(task: RolloutTask) -> tuple[str, int]:
    return str(task.group), task.attempt
