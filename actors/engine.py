"""The interface between a rollout actor and its sampler: the RolloutEngine protocol.

An engine owns weights, a KV cache and a sampler. It knows nothing of questions, rewards or Ray. It stamps each token, when it is
sampled, with the version of the weights. All methods are called from one asyncio loop; an engine that computes in a thread takes
commands between two steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from corewarding.actors.settings import EngineSettings, InflightMode
from corewarding.dataflow.carriers import FinishReason, Float32, Int32, RolloutTask
from corewarding.dataflow.errors import RunError, UserError
from corewarding.dataflow.ids import CompletionId, Version
from corewarding.dataflow.weights import Rendezvous, WeightManifest

FIRST_VERSION = Version(incarnation=0, updates=0)


class EngineError(RunError):
    """The engine refused a request or an update; the message says which and why. Its weights are unchanged."""


class EngineLostError(EngineError):
    """The engine cannot continue: its thread failed, or its server is gone. Its owner must build another."""


class EngineSettingsError(UserError):
    """The configured engine cannot be built: its package is missing, or it refuses the model or a setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineContext:
    """What every engine is built from."""

    settings: EngineSettings
    model_path: str  # Hugging Face folder or hub id
    max_model_len: int  # longest prompt + completion, in tokens
    eos_token_ids: tuple[int, ...] = ()  # a completion ends after one of these; empty: only at its max_new_tokens
    device: str = "cpu"  # "cpu" or "cuda"
    version: Version = FIRST_VERSION  # of the weights in model_path
    inflight: InflightMode = "recompute"
    seed: int = 0  # of what the engine draws outside of the completions' own streams; 31 bits

    @property
    def request_seeds(self) -> bool:
        """For an engine that can do without: whether each completion has its own stream."""
        chosen = self.settings.request_seeds
        return self.device == "cpu" if chosen is None else chosen


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampledSequence:
    """One finished completion as the engine knows it."""

    sample_index: int
    token_ids: Int32  # [L], end-of-sequence token included when finish_reason is "stop"
    behavior_logprobs: Float32  # [L] of log_softmax(logits / temperature)
    token_versions: Int32  # [L] updates
    finish_reason: FinishReason
    started_s: float
    finished_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """Counters since the start, and present numbers of sequences."""

    generated_tokens: int
    prefill_tokens: int  # rebuilt prefixes included
    steps: int
    busy_s: float  # forward passes and sampling
    idle_s: float  # nothing to do
    swap_s: float  # commits: loading weights and rebuilding the KV cache
    running: int  # sequences holding a slot now
    queued: int


class RolloutEngine(Protocol):
    """What a rollout actor needs of an engine."""

    @property
    def version(self) -> Version: ...

    @property
    def max_model_len(self) -> int: ...

    def generate(self, task: RolloutTask) -> AsyncIterator[SampledSequence]:
        """Yields the task's `group_size` sequences, each when it finishes. temperature 0 is greedy.

        Draw t of a completion uses hash(run_seed, completion id, t), so slot, batch, attempt and weight swaps do not change its
        stream of draws. EngineError if prompt + max_new_tokens exceeds max_model_len.
        """
        ...

    async def abort(self, task: RolloutTask) -> None:
        """Stops the task's sequences; its generate() raises EngineError. Unknown tasks are ignored."""
        ...

    async def pause(self) -> None:
        """Returns once no step is running; running sequences keep their slots."""
        ...

    async def resume(self) -> None: ...

    async def join(self, rendezvous: Rendezvous, rank: int) -> None:
        """Enters a weight group as `rank` (1, 2, ...) and leaves any earlier one. TransportError if the members do not meet."""
        ...

    async def begin(self, manifest: WeightManifest) -> None:
        """Opens an update. TransportError, and nothing changes, if the manifest does not name exactly this model's tensors,
        shapes and dtypes, or another update is open."""
        ...

    async def receive(self) -> None:
        """Takes in the announced stream while generation goes on. TransportError if it breaks off or a checksum differs."""
        ...

    async def commit(self, version: Version) -> None:
        """Swaps to the received weights between two steps and returns when that is done.

        Treats running sequences as `inflight.mode` says, clears what was cached under the old weights and stamps `version` from
        the next token on. TransportError if that version was not received; EngineError if the engine refuses.
        """
        ...

    async def abort_update(self) -> None:
        """Drops an open update and leaves the weight group; the old weights stay."""
        ...

    def stats(self) -> EngineStats: ...

    async def close(self) -> None: ...


def check_length(task: RolloutTask, max_model_len: int) -> None:
    """EngineError if the task could exceed max_model_len."""
    if len(task.prompt_token_ids) + task.max_new_tokens > max_model_len:
        raise EngineError(
            f"task {task.id}: {len(task.prompt_token_ids)} prompt tokens + rollout.max_new_tokens "
            f"{task.max_new_tokens} exceed engine.max_model_len {max_model_len}"
        )


def engine_seed(run_seed: int, actor_id: str, incarnation: int) -> int:
    """EngineContext.seed of an actor: engines with the same weights and prompts must not draw alike."""
    name = f"{run_seed}/{actor_id}/{incarnation}"
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little") >> 1


def stream_key(run_seed: int, completion: CompletionId) -> int:
    """64-bit key of one completion's stream of draws."""
    return int.from_bytes(hashlib.blake2b(f"{run_seed}/{completion}".encode(), digest_size=8).digest(), "little")
