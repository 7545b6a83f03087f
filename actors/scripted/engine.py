"""An engine without a model: replays recorded completions, for tests and for measuring the control plane.

Everything around the sampler is real: slots, in-flight versions, aborts, and weights that arrive over the transport and
are then dropped. Logprobs are a constant, so nothing trained on them means anything. Imports torch only to receive weights, so
hundreds of these fit on one machine.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from corewarding.actors.engine import EngineContext, EngineError, EngineStats, SampledSequence
from corewarding.dataflow.carriers import FinishReason, Int32, RolloutTask
from corewarding.dataflow.ids import Channel, GroupId, Version
from corewarding.dataflow.weights import Rendezvous, WeightManifest

if TYPE_CHECKING:
    from corewarding.weights.group import WeightGroup

LOGPROB = -0.5


Recorded = str | Int32
"""A completion as text, to which end-of-sequence is added, or as the tokens that were sampled."""


def read_script(path: str | Path) -> dict[str, list[Recorded]]:
    """Completions by question, white space folded, from JSONL objects with `question` and `completions` (texts or lists of token ids).

    ValueError, naming the line, for an object that has not both or has no completion.
    """
    script: dict[str, list[Recorded]] = {}
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            record = json.loads(line)
            texts = record.get("completions") if isinstance(record, dict) else None
            if not texts or not isinstance(texts, list) or not isinstance(record.get("question"), str):
                raise ValueError(
                    f"engine.script={path}, line {number}: want `question` and at least one of `completions`"
                )
            script[_folded(record["question"])] = [
                np.array(one, np.int32) if isinstance(one, list) else str(one) for one in texts
            ]
    if not script:
        raise ValueError(f"engine.script={path} is empty: there is nothing to replay")
    return script


class ScriptedEngine:
    """A RolloutEngine (actors/engine.py) that samples from a script."""

    def __init__(self, context: EngineContext) -> None:
        """Of the model only tokenizer.json is read. Without a KV cache, keep_kv equals recompute."""
        settings = context.settings
        assert settings.script is not None
        self._tokenizer = Tokenizer.from_file(str(Path(context.model_path) / "tokenizer.json"))
        self._script = read_script(settings.script)
        self._encoded = lru_cache(maxsize=4096)(self._encode)
        self._seconds_per_token = settings.script_seconds_per_token
        self._max_model_len = context.max_model_len
        self._device = context.device
        self._eos_token_id = min(context.eos_token_ids)
        self._version = context.version
        self._slots = asyncio.Semaphore(settings.slots)
        self._drains = context.inflight == "drain"
        self._may_start, self._none_running = asyncio.Event(), asyncio.Event()
        self._may_start.set()
        self._none_running.set()
        self._going = asyncio.Event()
        self._going.set()
        self._tasks: dict[tuple[GroupId, int], set[asyncio.Task[SampledSequence]]] = {}
        self._groups: dict[Channel, WeightGroup] = {}
        self._manifest: WeightManifest | None = None
        self._received = False
        self._tokens = self._prefilled = self._steps = self._running = self._queued = 0
        self._swap_s = self._busy_s = 0.0
        self._since = self._started = time.monotonic()

    @property
    def version(self) -> Version:
        return self._version

    @property
    def max_model_len(self) -> int:
        return self._max_model_len

    async def generate(self, task: RolloutTask) -> AsyncIterator[SampledSequence]:
        """Completion i of the task is the script's i-th (repeating), cut at max_new_tokens."""
        if len(task.prompt_token_ids) + task.max_new_tokens > self._max_model_len:
            raise EngineError(
                f"task {task.id}: {len(task.prompt_token_ids)} prompt tokens and max_new_tokens "
                f"{task.max_new_tokens} exceed max_model_len {self._max_model_len}"
            )
        texts = self._texts(task)
        key = (task.id, task.attempt)
        running = {
            asyncio.create_task(self._sample(i, texts[i % len(texts)], task.max_new_tokens))
            for i in range(task.group_size)
        }
        self._tasks[key] = running
        self._prefilled += len(task.prompt_token_ids) * task.group_size
        try:
            for finished in asyncio.as_completed(running):
                try:
                    sequence = await finished
                except asyncio.CancelledError:
                    if key in self._tasks:  # not aborted: it is our caller who was cancelled
                        raise
                    raise EngineError(f"task {task.id}, attempt {task.attempt}, was aborted") from None
                yield sequence
        finally:
            self._tasks.pop(key, None)
            for sampling in running:
                sampling.cancel()

    async def abort(self, task: RolloutTask) -> None:
        for sampling in self._tasks.pop((task.id, task.attempt), set()):
            sampling.cancel()

    async def pause(self) -> None:
        self._going.clear()

    async def resume(self) -> None:
        self._going.set()

    async def join(self, rendezvous: Rendezvous, rank: int) -> None:
        import torch

        from corewarding.weights.group import TransportError, WeightGroup

        await self._leave(rendezvous.channel)
        self._manifest = None
        try:
            group = await asyncio.to_thread(WeightGroup, rendezvous, rank=rank, device=torch.device(self._device))
        except TransportError as error:
            raise EngineError(str(error)) from error
        self._groups[rendezvous.channel] = group

    async def begin(self, manifest: WeightManifest) -> None:
        """Any tensors are welcome, since there is no model they could fail to fit."""
        if self._manifest is not None:
            raise EngineError(f"update to {self._manifest.version} is open; {manifest.version} cannot begin")
        group = self._groups.get(manifest.channel)
        if group is None or group.rendezvous.group_epoch != manifest.group_epoch:
            raise EngineError(f"not a member of {manifest.channel} weight group {manifest.group_epoch}")
        self._manifest, self._received = manifest, False

    async def receive(self) -> None:
        import torch

        from corewarding.weights.group import TransportError
        from corewarding.weights.stream import DTYPES, receive

        manifest = self._open()
        into = {
            spec.name: torch.empty(spec.shape, dtype=DTYPES[spec.dtype], device=self._device)
            for spec in manifest.tensors
        }
        try:
            await asyncio.to_thread(receive, self._groups[manifest.channel], manifest, into)
        except TransportError as error:
            raise EngineError(str(error)) from error
        self._received = True

    async def commit(self, version: Version) -> None:
        manifest = self._open()
        if not self._received or manifest.version != version:
            raise EngineError(f"cannot commit {version}: {manifest.version} is open, received: {self._received}")
        started = time.monotonic()
        if self._drains:
            self._may_start.clear()
            await self._none_running.wait()
        self._version, self._manifest = version, None
        self._may_start.set()
        self._swap_s += time.monotonic() - started

    async def abort_update(self) -> None:
        self._manifest = None
        for channel in list(self._groups):
            await self._leave(channel)

    def stats(self) -> EngineStats:
        self._account()
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

    def _texts(self, task: RolloutTask) -> list[Recorded]:
        prompt = _folded(self._tokenizer.decode(task.prompt_token_ids.tolist(), skip_special_tokens=True))
        matches = [question for question in self._script if question in prompt]
        if not matches:
            raise EngineError(f"task {task.id}: no question of the script occurs in its prompt {prompt[-200:]!r}")
        return self._script[max(matches, key=len)]

    def _encode(self, text: str) -> Int32:
        return np.array([*self._tokenizer.encode(text, add_special_tokens=False).ids, self._eos_token_id], np.int32)

    async def _sample(self, sample_index: int, recorded: Recorded, max_new_tokens: int) -> SampledSequence:
        ids = self._encoded(recorded) if isinstance(recorded, str) else recorded
        finish: FinishReason = "stop" if len(ids) <= max_new_tokens else "length"
        ids = ids[:max_new_tokens]
        async with self._slot():
            started_s = time.time()
            versions = await self._emit(len(ids))
            return SampledSequence(
                sample_index=sample_index,
                token_ids=ids,
                behavior_logprobs=np.full(len(ids), LOGPROB, np.float32),
                token_versions=versions,
                finish_reason=finish,
                started_s=started_s,
                finished_s=time.time(),
            )

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """A slot to run in; none is had while the engine drains."""
        queued = True
        self._queued += 1
        try:
            async with self._slots:
                await self._may_start.wait()
                queued = False
                self._queued -= 1
                self._account()
                self._running += 1
                self._none_running.clear()
                try:
                    yield
                finally:
                    self._account()
                    self._running -= 1
                    if not self._running:
                        self._none_running.set()
        finally:
            self._queued -= queued

    async def _emit(self, length: int) -> Int32:
        """[length] the version that each token was sampled under; takes `seconds_per_token` for each."""
        versions = np.empty(length, np.int32)
        step = 1 if self._seconds_per_token > 0 else length
        for token in range(0, length, step):
            await self._going.wait()
            if self._seconds_per_token > 0:
                await asyncio.sleep(self._seconds_per_token)
            versions[token : token + step] = self._version.updates
            self._tokens += step
            self._steps += 1
        return versions

    def _account(self) -> None:
        """Books the time since the last change of `running` as busy if anything was."""
        now = time.monotonic()
        if self._running:
            self._busy_s += now - self._since
        self._since = now

    def _open(self) -> WeightManifest:
        if self._manifest is None:
            raise EngineError("no update is open")
        return self._manifest

    async def _leave(self, channel: Channel) -> None:
        group = self._groups.pop(channel, None)
        if group is not None:
            await asyncio.to_thread(group.close)


def _folded(text: str) -> str:
    return " ".join(text.split())
