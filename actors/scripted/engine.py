"""An engine without a model: replays recorded completions, for tests and for measuring the control plane.

Slots, in-flight versions, aborts and weight transfers are real; received weights are dropped. Logprobs are a constant, so
training on them is meaningless. torch is imported only when weights are received, so hundreds of these fit on one machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from corewarding.actors.engine import EngineContext, EngineError, SampledSequence
from corewarding.actors.requested import RequestedEngine
from corewarding.actors.scripted.recordings import Recorded, folded, read_recordings
from corewarding.dataflow.carriers import FinishReason, Int32, RolloutTask
from corewarding.dataflow.ids import Version
from corewarding.dataflow.spans import now_s

if TYPE_CHECKING:
    from torch import Tensor

    from corewarding.weights.receiver import WeightReceiver

LOGPROB = -0.5


class ScriptedEngine(RequestedEngine):
    """Completion i of a task is the recording's i-th (repeating), cut at max_new_tokens."""

    def __init__(self, context: EngineContext) -> None:
        """Reads only tokenizer.json from the model folder. Without a KV cache, keep_kv equals recompute."""
        super().__init__(context)
        settings = context.settings
        assert settings.script is not None
        self._tokenizer = Tokenizer.from_file(str(Path(context.model_path) / "tokenizer.json"))
        self._recordings = read_recordings(settings.script)
        self._found = lru_cache(maxsize=256)(self._find)
        self._encoded = lru_cache(maxsize=4096)(self._encode)
        self._seconds_per_token = settings.script_seconds_per_token
        self._device = context.device
        self._eos_token_id = min(context.eos_token_ids)

    async def sample(self, task: RolloutTask, index: int) -> SampledSequence:
        started_s = now_s()
        recorded = self._found(task.prompt_token_ids.tobytes())
        one = recorded[index % len(recorded)]
        ids = self._encoded(one) if isinstance(one, str) else one
        finish: FinishReason = "stop" if len(ids) <= task.max_new_tokens else "length"
        ids = ids[: task.max_new_tokens]
        self._prefilled += len(task.prompt_token_ids)
        versions = await self._emit(len(ids))
        return SampledSequence(
            sample_index=index,
            token_ids=ids,
            behavior_logprobs=np.full(len(ids), LOGPROB, np.float32),
            token_versions=versions,
            finish_reason=finish,
            started_s=started_s,
            finished_s=now_s(),
        )

    async def swap(self, weights: Mapping[str, Tensor], version: Version) -> None:
        self._version = version

    def make_receiver(self) -> WeightReceiver:
        import torch

        from corewarding.weights.receiver import WeightReceiver

        return WeightReceiver(None, torch.device(self._device))

    def _find(self, prompt_token_ids: bytes) -> list[Recorded]:
        """Recordings of the longest question that occurs in the prompt, given as the bytes of [P] int32."""
        ids = np.frombuffer(prompt_token_ids, np.int32).tolist()
        prompt = folded(self._tokenizer.decode(ids, skip_special_tokens=True))
        matches = [question for question in self._recordings if question in prompt]
        if not matches:
            raise EngineError(f"no question of the script occurs in the prompt {prompt[-200:]!r}")
        return self._recordings[max(matches, key=len)]

    def _encode(self, text: str) -> Int32:
        return np.array([*self._tokenizer.encode(text, add_special_tokens=False).ids, self._eos_token_id], np.int32)

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
