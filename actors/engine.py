"""The seam between a rollout actor and whatever samples: the RolloutEngine protocol.

An engine owns weights, a KV cache and a sampler. It knows nothing of questions, rewards or Ray. It stamps each token with
the version of the weights that sampled it at the moment of sampling. All methods are called from one asyncio loop; an
engine that computes in a thread of its own takes commands between two steps.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from corewarding.actors.settings import EngineSettings, InflightMode
from corewarding.dataflow.carriers import FinishReason, Float32, Int32, RolloutTask
from corewarding.dataflow.errors import RunError, UserError
from corewarding.dataflow.ids import Version
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
    """Counters since start."""

    generated_tokens: int
    prefill_tokens: int  # rebuilt prefixes included
    steps: int
    busy_s: float  # in forward passes and sampling
    idle_s: float  # nothing to do
    swap_s: float  # commits: loading and rebuilding KV
    running: int  # sequences holding a slot now
    queued: int


class RolloutEngine(Protocol):
    """What a rollout actor asks of an engine."""

    @property
    def version(self) -> Version: ...

    @property
    def max_model_len(self) -> int: ...

    def generate(self, task: RolloutTask) -> AsyncIterator[SampledSequence]:
        """Yields the task's `group_size` sequences, each when it finishes. Draw t of a completion uses
        hash(run_seed, completion id, t), so neither slot, batch, attempt nor weight swaps move the stream.
        temperature 0 is greedy. EngineError where prompt + max_new_tokens exceeds max_model_len."""
        ...

    async def abort(self, task: RolloutTask) -> None:
        """Stops the task's sequences; its generate() ends by EngineError. Unknown tasks are ignored."""
        ...

    async def pause(self) -> None:
        """Returns once no step is running; running sequences keep their slots."""
        ...

    async def resume(self) -> None: ...

    async def join(self, rendezvous: Rendezvous, rank: int) -> None:
        """Enters a channel's weight group as `rank` (1, 2, ...), leaving any earlier group of that channel."""
        ...

    async def begin(self, manifest: WeightManifest) -> None:
        """Opens an update. EngineError, and nothing changes, where the manifest does not name exactly this model's
        tensors, shapes and dtypes, or another update is open."""
        ...

    async def receive(self) -> None:
        """Takes in the stream the manifest announced, while generation goes on. EngineError where a checksum differs."""
        ...

    async def commit(self, version: Version) -> None:
        """Between two steps: loads the received weights, treats running sequences as `inflight.mode` says, clears what
        was cached under the old weights, and stamps `version` from the next token on. Returns when that is done."""
        ...

    async def abort_update(self) -> None:
        """Drops an open update and leaves the channel's group; the old weights stay."""
        ...

    def stats(self) -> EngineStats: ...

    async def close(self) -> None: ...


def as_arrays(token_ids: list[int], logprobs: list[float], versions: list[int]) -> tuple[Int32, Float32, Int32]:
    """Lists of one sequence as the arrays carriers hold."""
    return np.array(token_ids, np.int32), np.array(logprobs, np.float32), np.array(versions, np.int32)
