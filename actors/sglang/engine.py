"""SGLang as a RolloutEngine: a server in its own environment, or one that runs already, spoken to over HTTP.

Every completion is a request of its own; the server gets at most `engine.slots` at a time, so that what has not started can be
drained around, or aborted for nothing. New weights arrive in this process while the server goes on sampling; a commit pauses it
(`recompute`: requests are retracted and their KV cache is recomputed, `keep_kv`: they stop in place), relays the weights between begin
and end, moves the version and goes on. Versions are those of the server's own spans; a server that gives none streams its tokens,
which are split at the swap.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corewarding.actors.engine import EngineContext, EngineError, EngineStats, SampledSequence
from corewarding.actors.settings import EngineSettings
from corewarding.actors.sglang.relay import Relay, described, in_buckets
from corewarding.actors.sglang.server import SglangServer
from corewarding.actors.stepped import check_length, stream_key
from corewarding.dataflow.carriers import FinishReason, RolloutTask
from corewarding.dataflow.ids import Version
from corewarding.dataflow.weights import Rendezvous, WeightManifest
from corewarding.weights.group import LOOPBACK, interface_towards, local_address
from corewarding.weights.receiver import WeightReceiver, parameters_of

_BUCKET_BYTES = 256 * 2**20
_RELAY_TIMEOUT_S, _FLUSH_S = 120.0, 30.0
_SPARE = (
    8  # tokens beyond max_model_len that the server believes it has: it refuses requests that fill its context exactly
)
_CPU_ARGUMENTS: dict[str, Any] = {
    "device": "cpu",
    "attention_backend": "torch_native",
    "sampling_backend": "pytorch",
    "grammar_backend": "none",
    "cuda_graph_backend_decode": "disabled",
    "cuda_graph_backend_prefill": "disabled",
    "disable_overlap_schedule": True,
    "sleep_on_idle": True,
}


class SglangEngine:
    """See actors.engine.RolloutEngine for what each method promises. Used from one event loop."""

    def __init__(self, context: EngineContext) -> None:
        """Returns when the server is healthy. EngineError, with the end of its log, if it does not start."""
        settings, device = context.settings, torch.device(context.device)
        self._settings, self._max_model_len, self._inflight = settings, context.max_model_len, context.inflight
        self._stop_tokens = sorted(context.eos_token_ids)
        self._version = context.version
        parameters = parameters_of(context.model_path, getattr(torch, settings.dtype))
        self._weights = WeightReceiver(parameters, device, on_host=True)
        arguments = _arguments(context.model_path, settings, context.max_model_len, device, context.version.updates)
        self._server = SglangServer(arguments, settings, _environment(settings, device))
        self._relay: Relay | None = None
        self._begins = self._spans = True  # the newer protocol, until an answer says otherwise
        self._slots = asyncio.Semaphore(settings.slots)
        self._may_start, self._none_running = asyncio.Event(), asyncio.Event()
        self._may_start.set()
        self._none_running.set()
        self._paused = False
        self._tasks: dict[tuple[str, int], dict[str, asyncio.Task[SampledSequence]]] = {}
        self._swapping = asyncio.Lock()
        self._counts = dict.fromkeys(("tokens", "prefilled", "running", "queued"), 0)
        self._swap_s = self._busy_s = 0.0
        self._since = self._started = time.monotonic()

    @property
    def process(self) -> Any:
        """The server's, None where it is not ours."""
        return self._server.process

    @property
    def version(self) -> Version:
        return self._version

    @property
    def max_model_len(self) -> int:
        return self._max_model_len

    async def generate(self, task: RolloutTask) -> AsyncIterator[SampledSequence]:
        check_length(task, self._max_model_len)
        key = (str(task.id), task.attempt)
        if key in self._tasks:
            raise EngineError(f"task {task.id} is running already")
        names = [f"{task.id}/{task.attempt}/{index}" for index in range(task.group_size)]
        running = {name: asyncio.create_task(self._sample(task, i, name)) for i, name in enumerate(names)}
        self._tasks[key] = running
        try:
            for finished in asyncio.as_completed(running.values()):
                try:
                    sequence = await finished
                except asyncio.CancelledError:
                    if key in self._tasks:  # not aborted: it is our caller who was cancelled
                        raise
                    raise EngineError(f"task {task.id}, attempt {task.attempt}, was aborted") from None
                yield sequence
        finally:
            self._tasks.pop(key, None)
            for sampling in running.values():
                sampling.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)

    async def abort(self, task: RolloutTask) -> None:
        running = self._tasks.pop((str(task.id), task.attempt), {})
        for name, sampling in running.items():
            if not sampling.done():
                sampling.cancel()
                await self._server.post("/abort_request", rid=name)

    async def pause(self) -> None:
        self._paused = True
        await self._server.post("/pause_generation", mode="in_place")

    async def resume(self) -> None:
        self._paused = False
        await self._server.post("/continue_generation")

    async def join(self, rendezvous: Rendezvous, rank: int) -> None:
        await asyncio.to_thread(self._weights.join, rendezvous, rank)

    async def begin(self, manifest: WeightManifest) -> None:
        self._weights.begin(manifest)

    async def receive(self) -> None:
        await asyncio.to_thread(self._weights.receive)

    async def commit(self, version: Version) -> None:
        staged = self._weights.take(version)
        async with self._swapping:
            if self._inflight == "drain":
                if self._paused and self._counts["running"]:
                    raise EngineError(
                        f"{version} cannot be committed under inflight.mode drain while the engine is paused"
                    )
                self._may_start.clear()
                await self._none_running.wait()
            began = time.monotonic()
            await self._swap(staged, version)
            self._may_start.set()
            self._swap_s += time.monotonic() - began

    async def abort_update(self) -> None:
        await asyncio.to_thread(self._weights.abort)

    def stats(self) -> EngineStats:
        self._account(0)
        return EngineStats(
            generated_tokens=self._counts["tokens"],
            prefill_tokens=self._counts["prefilled"],
            steps=0,
            busy_s=self._busy_s,
            idle_s=time.monotonic() - self._started - self._busy_s,
            swap_s=self._swap_s,
            running=self._counts["running"],
            queued=self._counts["queued"],
        )

    async def close(self) -> None:
        for running in list(self._tasks.values()):
            for sampling in running.values():
                sampling.cancel()
        self._tasks.clear()
        if self._relay is not None:
            if self._server.process is None:  # it goes on without us
                with contextlib.suppress(EngineError):
                    await self._server.ask("/destroy_weights_update_group", group_name=self._relay.name)
            self._relay.close()
        await self._server.close()
        await self.abort_update()

    async def _sample(self, task: RolloutTask, index: int, name: str) -> SampledSequence:
        self._counts["queued"] += 1
        queued = True
        try:
            async with self._slots:
                while not self._may_start.is_set():
                    await self._may_start.wait()
                queued = False
                self._counts["queued"] -= 1
                self._account(+1)
                try:
                    return await self._request(task, index, name)
                finally:
                    self._account(-1)
        finally:
            self._counts["queued"] -= queued

    async def _request(self, task: RolloutTask, index: int, name: str) -> SampledSequence:
        body = {
            "rid": name,
            "input_ids": task.prompt_token_ids.tolist(),
            "extra_key": str(self._version),  # no prefix cached under other weights is shared
            "return_logprob": True,
            "sampling_params": {
                "temperature": task.temperature,
                "max_new_tokens": task.max_new_tokens,
                "stop_token_ids": self._stop_tokens,
                "ignore_eos": not self._stop_tokens,
                "sampling_seed": stream_key(task.run_seed, task.id.completion(index)) >> 1,
                "skip_special_tokens": False,
                "no_stop_trim": True,
            },
        }
        started_s = time.time()
        self._counts["prefilled"] += len(task.prompt_token_ids)
        if self._spans:
            answer = await self._server.post("/generate", **body)
            versions = None
        else:
            answer, versions = await self._streamed(body)
        sequence = self._sequence(index, answer, versions, started_s)
        self._counts["tokens"] += len(sequence.token_ids)
        return sequence

    async def _streamed(self, body: Mapping[str, Any]) -> tuple[Any, list[int]]:
        """The last event, and the version under which each token came."""
        answer: Any = None
        versions: list[int] = []
        async for answer in self._server.stream("/generate", **body, stream=True):
            num_new = answer["meta_info"]["completion_tokens"] - len(versions)
            versions += [self._version.updates] * num_new
        return answer, versions

    def _sequence(self, index: int, answer: Any, versions: list[int] | None, started_s: float) -> SampledSequence:
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
            finished_s=time.time(),
        )

    async def _swap(self, weights: Mapping[str, Tensor], version: Version) -> None:
        keeps = self._inflight == "keep_kv"
        await self._server.post("/pause_generation", mode="in_place" if keeps else "retract")
        relay = await self._connected()
        if self._begins:
            status, answer = await self._server.ask("/begin_weight_update")
            self._begins = status != 404  # 404: a server of before 0.5.21, which knows neither sessions nor spans
            if status not in (200, 404):
                raise EngineError(f"the SGLang server refuses an update of its weights: {answer}")
        for bucket in in_buckets(weights, _BUCKET_BYTES):
            taking = self._server.post(
                "/update_weights_from_distributed", **described(bucket), group_name=relay.name, flush_cache=False
            )
            await asyncio.gather(taking, asyncio.to_thread(relay.send, bucket))
        if self._begins:
            await self._server.post("/end_weight_update")
        if not keeps:
            await self._flush()
        await self._server.post("/update_weight_version", new_version=str(version.updates), abort_all_requests=False)
        self._version, self._spans = version, self._spans and self._begins
        if not self._paused:
            await self._server.post("/continue_generation")

    async def _connected(self) -> Relay:
        """The group of this process and its server, made at the first swap."""
        if self._relay is None:
            host = local_address(self._server.host, self._server.port)
            if host != LOOPBACK:
                os.environ.setdefault("GLOO_SOCKET_IFNAME", interface_towards(self._server.host, self._server.port))
            relay = Relay(host, self._settings.tensor_parallel, timeout_s=_RELAY_TIMEOUT_S)
            joining = self._server.post(
                "/init_weights_update_group",
                master_address=host,
                master_port=relay.port,
                rank_offset=1,
                world_size=relay.world_size,
                group_name=relay.name,
                backend="gloo",
            )
            await asyncio.gather(joining, asyncio.to_thread(relay.connect))
            self._relay = relay
        return self._relay

    async def _flush(self) -> None:
        """It refuses while a step is still being put away."""
        deadline = time.monotonic() + _FLUSH_S
        while True:
            status, answer = await self._server.ask("/flush_cache")
            if status == 200:
                return
            if time.monotonic() > deadline:
                raise EngineError(f"the SGLang server does not clear its cache: {answer}")
            await asyncio.sleep(0.01)

    def _account(self, change: int) -> None:
        """Books the time since the last change of `running` as busy if anything was."""
        now = time.monotonic()
        if self._counts["running"]:
            self._busy_s += now - self._since
        self._since = now
        self._counts["running"] += change
        if self._counts["running"]:
            self._none_running.clear()
        else:
            self._none_running.set()


def _versions_of(meta: Mapping[str, Any], num_tokens: int) -> list[int]:
    """[L] from the server's spans."""
    versions = [0] * num_tokens
    for span in meta["weight_versions"]:
        versions[span["start"] : span["end"]] = [int(span["version"])] * (span["end"] - span["start"])
    return versions


def _arguments(
    model_path: str, settings: EngineSettings, max_model_len: int, device: torch.device, initial_updates: int
) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model_path": model_path,
        "skip_tokenizer_init": True,
        "skip_server_warmup": True,
        "dtype": settings.dtype,
        "context_length": max_model_len + _SPARE,
        "max_running_requests": settings.slots,
        "tensor_parallel_size": settings.tensor_parallel,
        "quantization": settings.quantization,
        "mem_fraction_static": settings.memory_fraction,
        "weight_version": str(initial_updates),
        "random_seed": 0,
        "log_level": "warning",
    }
    if device.type == "cpu":
        arguments |= _CPU_ARGUMENTS | {
            "max_total_tokens": (settings.slots + 1) * (max_model_len + _SPARE),
            "mem_fraction_static": 0.2,
        }
    return arguments | settings.arguments


def _environment(settings: EngineSettings, device: torch.device) -> dict[str, str]:
    environment = {"SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN": "1", "OMP_NUM_THREADS": str(settings.threads)}
    if device.type == "cpu":
        ranks, each = settings.tensor_parallel, settings.threads
        cores = settings.cores or tuple(range(ranks * each))
        groups = (cores[rank * each : (rank + 1) * each] or cores for rank in range(ranks))
        environment |= {
            "SGLANG_USE_CPU_ENGINE": "1",
            "SGLANG_CPU_OMP_THREADS_BIND": "|".join(",".join(map(str, group)) for group in groups),
            "CUDA_VISIBLE_DEVICES": "",
        }
    return environment
