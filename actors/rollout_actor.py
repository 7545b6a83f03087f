"""The rollout actor: an engine, whose sequences become tagged completions that are delivered to the replay buffer.

Invariant: a group is kept until the buffer acknowledges it and is delivered in one call. Delivering it again is harmless, because
the buffer recognizes completions by id. `ray.remote` is applied where the actor is placed, not here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corewarding.actors.engine import (
    EngineContext,
    EngineError,
    EngineLostError,
    RolloutEngine,
    SampledSequence,
)
from corewarding.actors.stats import RolloutStats, stats_between
from corewarding.dataflow.carriers import Completion, RolloutTask, Timings
from corewarding.dataflow.codec import decode as decode_message
from corewarding.dataflow.codec import encode
from corewarding.dataflow.errors import RunError, UserError, origin, reason_of
from corewarding.dataflow.ids import Source, Version
from corewarding.dataflow.process import keep_log, pin_to_cores
from corewarding.dataflow.spans import now_s
from corewarding.dataflow.weights import Rendezvous, WeightManifest

if TYPE_CHECKING:
    from corewarding.rewards.answers.extract import Fallback

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.1, 5.0


class DeliveryError(RunError):
    """A group was sampled and the buffer did not take it."""


class BufferUnavailableError(DeliveryError):
    """The buffer cannot be reached now, but may come back."""


class BufferLostError(DeliveryError):
    """The buffer died and will not come back."""


class BufferRefusedError(DeliveryError):
    """The buffer raised an error over the group."""


class RolloutActor:
    """Samples groups for one source. All methods run on one event loop; messages are encoded by dataflow.codec."""

    def __init__(
        self,
        *,
        actor_id: str,
        source: Source,
        engine: RolloutEngine,
        decode: Callable[[Sequence[int]], str],
        extract: Callable[[str], str | None],
        buffer_accept: Callable[[bytes], Awaitable[object]],
        buffer_patience_s: float = 600.0,
    ) -> None:
        """decode: token ids → text without special tokens. extract: text → answer, or None.

        buffer_accept: delivers an encoded list of completions and returns when the buffer acknowledges it. If it raises
        BufferUnavailableError, it is called again, for at most `buffer_patience_s` seconds.
        """
        self._actor_id = actor_id
        self._source = source
        self._engine = engine
        self._decode = decode
        self._extract = extract
        self._buffer_accept = buffer_accept
        self._buffer_patience_s = buffer_patience_s
        self._swaps = 0
        self._undelivered = 0
        self._last_stats = engine.stats()
        self._last_stats_s = time.monotonic()

    async def run(self, task: bytes) -> int:
        """Samples one RolloutTask and delivers the group; returns its number of tokens when the buffer has acknowledged it.

        EngineError if the engine refuses, or the task is aborted or of the other source; BufferUnavailableError after
        `buffer_patience_s`.
        """
        asked = _task(task)
        if asked.id.source != self._source:
            raise EngineError(f"task {asked.id} came to {self._actor_id}, which samples from the {self._source}")
        completions = await self._sample(asked)
        self._undelivered += 1
        try:
            await self._deliver(encode(completions))
        finally:
            self._undelivered -= 1
        return sum(len(completion.token_ids) for completion in completions)

    async def sample(self, task: bytes) -> bytes:
        """Samples one RolloutTask, of any source, and returns the list of its completions instead of delivering it."""
        return encode(await self._sample(_task(task)))

    async def abort(self, task: bytes) -> None:
        """Stops a task; its run() or sample() raises EngineError."""
        await self._engine.abort(_task(task))

    async def join(self, rendezvous: bytes, rank: int) -> None:
        """Enters a weight group as `rank`; returns when all members have entered. TransportError if they do not."""
        message = decode_message(rendezvous)
        assert isinstance(message, Rendezvous)
        await self._engine.join(message, rank)

    async def begin(self, manifest: bytes) -> None:
        """Opens an update. TransportError if the manifest does not fit the model."""
        message = decode_message(manifest)
        assert isinstance(message, WeightManifest)
        await self._engine.begin(message)

    async def receive(self) -> None:
        """Takes in the announced stream while sampling goes on. TransportError if it does not arrive intact."""
        await self._engine.receive()

    async def commit(self, version: bytes) -> None:
        """Swaps to the received weights; the next token is stamped `version`."""
        message = decode_message(version)
        assert isinstance(message, Version)
        await self._engine.commit(message)
        self._swaps += 1

    async def abort_update(self) -> None:
        """Drops an open update and leaves the weight group; the old weights stay."""
        await self._engine.abort_update()

    async def version(self) -> bytes:
        """Version of the weights that sample the next token. The first answer shows that the actor is up."""
        return encode(self._engine.version)

    async def stats(self) -> RolloutStats:
        """Rates and shares since the last call; `tokens` and `swaps` since the start."""
        now, stats = time.monotonic(), self._engine.stats()
        report = stats_between(self._last_stats, stats, seconds=max(now - self._last_stats_s, 1e-9))
        self._last_stats, self._last_stats_s = stats, now
        own = {"swaps": float(self._swaps), "undelivered": float(self._undelivered)}
        return RolloutStats(sums=report.sums | own, means=report.means)

    async def close(self) -> None:
        """Stops the engine; running tasks raise EngineError."""
        await self._engine.close()

    async def _sample(self, task: RolloutTask) -> list[Completion]:
        submitted_s = now_s()
        completions = [self._tag(task, seq, submitted_s) async for seq in self._engine.generate(task)]
        if sorted(c.id.sample_index for c in completions) != list(range(task.group_size)):
            raise EngineError(
                f"task {task.id}: the engine ended after {len(completions)} of {task.group_size} sequences"
            )
        return sorted(completions, key=lambda completion: completion.id)

    def _tag(self, task: RolloutTask, sequence: SampledSequence, submitted_s: float) -> Completion:
        text = self._decode(sequence.token_ids.tolist())
        return Completion(
            id=task.id.completion(sequence.sample_index),
            incarnation=task.incarnation,
            attempt=task.attempt,
            prompt_token_ids=task.prompt_token_ids,
            token_ids=sequence.token_ids,
            behavior_logprobs=sequence.behavior_logprobs,
            token_versions=sequence.token_versions,
            temperature=task.temperature,
            text=text,
            answer=self._extract(text),
            finish_reason=sequence.finish_reason,
            actor_id=self._actor_id,
            timings=Timings(submitted_s=submitted_s, started_s=sequence.started_s, finished_s=sequence.finished_s),
        )

    async def _deliver(self, message: bytes) -> None:
        deadline = time.monotonic() + self._buffer_patience_s
        backoff = FIRST_BACKOFF_S
        while True:
            try:
                await self._buffer_accept(message)
                return
            except BufferUnavailableError:
                if time.monotonic() + backoff > deadline:
                    raise
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # random, so that actors do not all retry at once
            backoff = min(2 * backoff, LONGEST_BACKOFF_S)


class PlacedRolloutActor(RolloutActor):
    """A RolloutActor that builds its own parts; `ray.remote` is applied to this class."""

    def __init__(
        self,
        *,
        actor_id: str,
        source: Source,
        context: EngineContext,
        system_prompt: str,
        buffer: Any,
        fallbacks: Sequence[Fallback] = (),
        log: Path | None = None,
    ) -> None:
        """log: the file of this process. context: the engine's; its eos_token_ids are taken from the model's chat template.

        buffer: the replay buffer's Ray handle; its `accept` takes the bytes. fallbacks: see rewards.answers.extract.
        """
        import torch

        from corewarding.actors.engines import make_engine
        from corewarding.questions.template import PromptTemplate
        from corewarding.rewards.answers.extract import extract_answer

        keep_log(log)
        pin_to_cores(context.settings.cores, key="engine.cores")
        torch.set_num_threads(context.settings.threads)
        template = PromptTemplate.from_folder(context.model_path, system_prompt=system_prompt)
        engine = make_engine(dataclasses.replace(context, eos_token_ids=template.eos_token_ids))
        super().__init__(
            actor_id=actor_id,
            source=source,
            engine=engine,
            decode=template.decode,
            extract=partial(extract_answer, fallbacks=fallbacks),
            buffer_accept=accept_of(buffer),
        )

    async def _sample(self, task: RolloutTask) -> list[Completion]:
        """Ends the process if the engine is lost, so that the group starts another actor and repeats the task."""
        try:
            return await super()._sample(task)
        except EngineLostError as error:
            print(f"{self._actor_id} ends: {error}", file=sys.stderr, flush=True)
            os._exit(1)


def build_rollout_actor(**parts: Any) -> RolloutActor:
    """A rollout actor in this process; takes the keywords of PlacedRolloutActor."""
    return PlacedRolloutActor(**parts)


def accept_of(buffer: Any) -> Callable[[bytes], Awaitable[object]]:
    """`buffer.accept` of a Ray handle, with its deaths and errors as DeliveryError.

    Ray's own error would read as the death of this actor, and an error of the buffer as one of the task. A UserError stays what it
    is: a plug-in's rule may fail while the buffer scores.
    """
    from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError

    async def accept(message: bytes) -> object:
        try:
            return await buffer.accept.remote(message)
        except ActorUnavailableError as error:
            raise BufferUnavailableError(str(error)) from error
        except RayActorError as error:
            raise BufferLostError(f"the replay buffer died: {error}") from error
        except RayTaskError as error:
            if isinstance(cause := origin(error), UserError):
                raise cause from None
            raise BufferRefusedError(f"the replay buffer failed: {reason_of(error)}") from error

    return accept


def _task(message: bytes) -> RolloutTask:
    task = decode_message(message)
    assert isinstance(task, RolloutTask)
    return task
