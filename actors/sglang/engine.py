"""SGLang as a RolloutEngine: a server in its own environment, or one that runs already, asked over HTTP.

Every completion is one request. The server gets at most `engine.slots` at a time, so the rest can still be aborted or held back
without asking it. New weights arrive in this process while the server goes on sampling. A commit pauses the server (`recompute`:
requests are retracted and their KV cache is recomputed; `keep_kv`: they stop in place), hands over the weights, sets the version and
resumes. Versions are those of the server's own spans; a server that reports none streams its tokens, which are split at the swap.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corewarding.actors.engine import EngineContext, EngineError, SampledSequence, stream_key
from corewarding.actors.parameters import parameters_of
from corewarding.actors.requested import RequestedEngine
from corewarding.actors.sglang.arguments import server_arguments, server_environment
from corewarding.actors.sglang.handover import Handover
from corewarding.actors.sglang.relay import Relay
from corewarding.actors.sglang.server import SglangServer
from corewarding.dataflow.carriers import FinishReason, RolloutTask
from corewarding.dataflow.ids import Version
from corewarding.dataflow.spans import now_s
from corewarding.weights.receiver import WeightReceiver

_FLUSH_S = 30.0


class SglangEngine(RequestedEngine):
    """See actors.engine.RolloutEngine for what each method promises."""

    def __init__(self, context: EngineContext) -> None:
        """Returns when the server is healthy. EngineError, with the end of its log, if it does not start."""
        super().__init__(context)
        self._context, settings = context, context.settings
        self._stop_tokens = sorted(context.eos_token_ids)
        self._parameters = parameters_of(context.model_path, getattr(torch, settings.dtype))
        self.server = SglangServer(server_arguments(context), settings, server_environment(context))
        self._way: Handover | Relay | None = None
        self._begins = self._spans = True  # the newer protocol, until an answer says otherwise

    async def pause(self) -> None:
        await super().pause()
        await self.server.post("/pause_generation", mode="in_place")

    async def resume(self) -> None:
        await super().resume()
        await self.server.post("/continue_generation")

    async def close(self) -> None:
        await super().close()
        if self._way is not None:
            await self._way.close(self.server)
        await self.server.close()

    def make_receiver(self) -> WeightReceiver:
        return WeightReceiver(self._parameters, torch.device(self._context.device), on_host=True)

    async def end_request(self, task: RolloutTask, index: int) -> None:
        await self.server.post("/abort_request", rid=_request_id(task, index))

    async def sample(self, task: RolloutTask, index: int) -> SampledSequence:
        body = {
            "rid": _request_id(task, index),
            "input_ids": task.prompt_token_ids.tolist(),
            "extra_key": str(self._version),  # no prefix cached under other weights is shared
            "return_logprob": True,
            "sampling_params": {
                "temperature": task.temperature,
                "max_new_tokens": task.max_new_tokens,
                "stop_token_ids": self._stop_tokens,
                "ignore_eos": not self._stop_tokens,
                **self._seed(task, index),
                "skip_special_tokens": False,
                "no_stop_trim": True,
            },
        }
        started_s = now_s()
        self._prefilled += len(task.prompt_token_ids)
        if self._spans:
            answer = await self.server.post("/generate", **body)
            versions = None
        else:
            answer, versions = await self._streamed(body)
        sequence = _sequence(index, answer, versions, started_s)
        self._tokens += len(sequence.token_ids)
        return sequence

    def _seed(self, task: RolloutTask, index: int) -> dict[str, int]:
        if not self._context.request_seeds:
            return {}
        return {"sampling_seed": stream_key(task.run_seed, task.id.completion(index)) >> 1}  # SGLang takes 63 bits

    async def _streamed(self, body: Mapping[str, Any]) -> tuple[Any, list[int]]:
        """The last event, and the version under which each token came."""
        answer: Any = None
        versions: list[int] = []
        async for answer in self.server.stream("/generate", **body, stream=True):
            num_new = answer["meta_info"]["completion_tokens"] - len(versions)
            versions += [self._version.updates] * num_new
        return answer, versions

    async def swap(self, weights: Mapping[str, Tensor], version: Version) -> None:
        keeps = self._inflight == "keep_kv"
        await self.server.post("/pause_generation", mode="in_place" if keeps else "retract")
        way = await self._way_for(weights)
        if self._begins:
            status, answer = await self.server.ask("/begin_weight_update")
            self._begins = status != 404  # 404: a server older than 0.5.21, which has neither sessions nor spans
            if status not in (200, 404):
                raise EngineError(f"the SGLang server refuses a weight update: {answer}")
        await way.deliver(self.server, weights)
        if self._begins:
            await self.server.post("/end_weight_update")
        if not keeps:
            await self._flush()
        await self.server.post("/update_weight_version", new_version=str(version.updates), abort_all_requests=False)
        self._version, self._spans = version, self._spans and self._begins
        if not self._paused:
            await self.server.post("/continue_generation")

    async def _way_for(self, weights: Mapping[str, Tensor]) -> Handover | Relay:
        """How weights reach the server, made at the first swap."""
        if self._way is None:
            if self.server.process is not None and Handover.possible(self._context, weights):
                self._way = Handover.to_workers(self._context, weights)
            else:
                self._way = await Relay.to_workers(self.server, self._context.settings.tensor_parallel)
        return self._way

    async def _flush(self) -> None:
        """Clears the server's cache; the server refuses while it still finishes a step."""
        deadline = time.monotonic() + _FLUSH_S
        while True:
            status, answer = await self.server.ask("/flush_cache")
            if status == 200:
                return
            if time.monotonic() > deadline:
                raise EngineError(f"the SGLang server does not clear its cache: {answer}")
            await asyncio.sleep(0.01)


def _request_id(task: RolloutTask, index: int) -> str:
    return f"{task.id}/{task.attempt}/{index}"


def _sequence(index: int, answer: Any, versions: list[int] | None, started_s: float) -> SampledSequence:
    meta = answer["meta_info"]
    reason = meta["finish_reason"]["type"]
    if reason == "abort":
        raise EngineError(
            f"the SGLang server aborted a request: {meta['finish_reason'].get('message', 'no reason given')}"
        )
    logprobs, tokens = zip(*((entry[0], entry[1]) for entry in meta["output_token_logprobs"]), strict=True)
    finish: FinishReason = "stop" if reason == "stop" else "length"
    return SampledSequence(
        sample_index=index,
        token_ids=np.array(tokens, np.int32),
        behavior_logprobs=np.array(logprobs, np.float32),
        token_versions=np.array(versions or _versions_of(meta, len(tokens)), np.int32),
        finish_reason=finish,
        started_s=started_s,
        finished_s=now_s(),
    )


def _versions_of(meta: Mapping[str, Any], num_tokens: int) -> list[int]:
    """[L] from the server's spans."""
    versions = [0] * num_tokens
    for span in meta["weight_versions"]:
        versions[span["start"] : span["end"]] = [int(span["version"])] * (span["end"] - span["start"])
    return versions
