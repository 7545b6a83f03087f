"""vLLM as a RolloutEngine: its LLMEngine in this process, stepped by one thread (actors/stepped.py).

Every completion is one request with its own seed. vLLM holds at most `engine.slots` requests, so queued ones can still be held back or
aborted without asking it. Versions are those of vLLM's own spans. A commit pauses the scheduler between two steps, loads the staged
weights through vLLM's weight-transfer API (worker.py) and resumes: `recompute` preempts running requests and clears the KV cache,
`keep_kv` keeps both. Prompts are cached with their version as salt, so no cache block outlives its weights.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

# Read when vllm is imported: the engine core runs in our thread, and we place the threads.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # else it warns at every swap about layers without weights

import numpy as np
import torch
from torch import Tensor
from vllm import EngineArgs, SamplingParams
from vllm.config import WeightTransferConfig
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.llm_engine import LLMEngine

from corewarding.actors.engine import EngineContext, EngineSettingsError, SampledSequence
from corewarding.actors.parameters import parameters_of
from corewarding.actors.settings import EngineSettings
from corewarding.actors.shared_memory import path_of, reserve
from corewarding.actors.stepped import Pending, Request, SteppedEngine
from corewarding.actors.vllm.worker import BACKEND, STAGED, share
from corewarding.dataflow.carriers import FinishReason
from corewarding.dataflow.ids import Version
from corewarding.dataflow.spans import now_s
from corewarding.weights.model_config import model_config
from corewarding.weights.receiver import WeightReceiver

_CPU_BLOCK = 32  # tokens; attention on the CPU needs a multiple of 32


class VllmEngine(SteppedEngine):
    """See actors.engine.RolloutEngine for what each method promises."""

    def __init__(self, context: EngineContext) -> None:
        """EngineSettingsError, in vLLM's own words, if it refuses the model or an argument."""
        settings, device = context.settings, torch.device(context.device)
        self._num_slots, self._request_seeds = settings.slots, context.request_seeds
        self._stop_tokens = sorted(context.eos_token_ids)
        self._running: dict[str, Pending] = {}
        self._last_request = 0
        parameters = parameters_of(context.model_path, getattr(torch, settings.dtype))
        self._handle, self._memory = f"engine-{id(self)}", None
        if settings.tensor_parallel > 1:
            self._memory = reserve(sum(tensor.nbytes for tensor in parameters.values()))
            self._handle = path_of(self._memory)
        self._llm = _load(context, device)
        self._llm.set_weight_version(str(context.version.updates))
        super().__init__("vLLM", context, WeightReceiver(parameters, device, on_host=True))
        self._start()

    # ---- the engine's thread -----------------------------------------------------------------------------------------

    def num_running(self) -> int:
        return len(self._running)

    def step(self) -> None:
        while self._waiting and len(self._running) < self._num_slots:
            self._admit(self._waiting.popleft())
        self._decode()

    def _admit(self, pending: Pending) -> None:
        task = pending.task
        self._last_request += 1
        request_id = str(self._last_request)
        parameters = SamplingParams(
            temperature=task.temperature,
            seed=pending.stream_key >> 1 if self._request_seeds else None,  # vLLM takes 63 bits
            max_tokens=task.max_new_tokens,
            stop_token_ids=self._stop_tokens,
            ignore_eos=True,  # the model's own; we pass stop tokens
            logprobs=0,  # only of the sampled token
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        prompt: Any = {"prompt_token_ids": task.prompt_token_ids.tolist(), "cache_salt": str(self._version)}
        self._llm.add_request(request_id, prompt, parameters)
        pending.started_s = now_s()
        self._running[request_id] = pending
        self._prefilled += len(task.prompt_token_ids)

    def _decode(self) -> None:
        """Runs one step and delivers finished sequences."""
        self._steps += 1
        for output in self._llm.step():
            assert isinstance(output, RequestOutput)
            pending = self._running.pop(output.request_id, None)
            if pending is not None:
                sequence = _sequence(pending, output.outputs[0])
                self._tokens += len(sequence.token_ids)
                self._deliver(pending, sequence)

    def drop(self, request: Request) -> None:
        dropped = [request_id for request_id, pending in self._running.items() if pending.request is request]
        self._llm.abort_request(dropped)
        for request_id in dropped:
            del self._running[request_id]

    def swap(self, weights: Mapping[str, Tensor], version: Version) -> None:
        if self._inflight == "drain":
            self._drain(version, self._decode)
        began = time.perf_counter()
        self._llm.sleep(0, "keep")  # stops the scheduler but keeps running requests
        self._load(weights)
        if self._inflight != "keep_kv":
            self._llm.reset_prefix_cache(reset_running_requests=True)
        self._llm.set_weight_version(str(version.updates))
        self._version = version
        self._llm.wake_up(["scheduling"])
        self._swap_s += time.perf_counter() - began

    def _load(self, weights: Mapping[str, Tensor]) -> None:
        """One weight update of vLLM, on all workers."""
        layout = share(weights, self._handle) if self._memory is not None else None
        STAGED[self._handle] = weights
        try:
            self._llm.collective_rpc("start_weight_update")
            self._llm.collective_rpc("update_weights", args=({"handle": self._handle, "layout": layout},))
            self._llm.collective_rpc("finish_weight_update")
        finally:
            del STAGED[self._handle]

    def stop(self) -> None:
        self._llm.engine_core.shutdown()
        if self._memory is not None:
            os.close(self._memory)
            self._memory = None


def _load(context: EngineContext, device: torch.device) -> LLMEngine:
    settings, max_model_len = context.settings, context.max_model_len
    arguments: dict[str, Any] = {
        "model": context.model_path,
        "skip_tokenizer_init": True,
        "trust_remote_code": False,
        "dtype": settings.dtype,
        "max_model_len": max_model_len,
        "max_num_seqs": settings.slots,
        "max_num_batched_tokens": max(settings.prefill_tokens, max_model_len, settings.slots),
        "tensor_parallel_size": settings.tensor_parallel,
        # In a placement group vLLM would ask Ray for one bundle per worker; ours gives the whole engine one.
        "distributed_executor_backend": "mp" if settings.tensor_parallel > 1 else "uni",
        "quantization": settings.quantization,
        "gpu_memory_utilization": settings.memory_fraction,
        "logprobs_mode": "processed_logprobs",  # of the sampled distribution, including temperature
        "generation_config": "vllm",  # no top-p, top-k or penalties from the model
        "enable_prefix_caching": True,
        "async_scheduling": False,  # a step returns the tokens it sampled
        "disable_log_stats": True,
        "seed": context.seed,
        "weight_transfer_config": WeightTransferConfig(backend=BACKEND),
        "worker_extension_cls": "corewarding.actors.vllm.worker.Extension",
    }
    if settings.kv_cache_mb is not None:
        arguments["kv_cache_memory_bytes"] = settings.kv_cache_mb * 2**20
    if device.type == "cpu":
        # Chunked prefill rewinds a request's seeded generator, which CPU generators cannot do.
        arguments |= {"enforce_eager": True, "block_size": _CPU_BLOCK, "enable_chunked_prefill": False}
        arguments.setdefault("kv_cache_memory_bytes", _kv_bytes(context.model_path, settings, max_model_len))
    try:
        return LLMEngine.from_engine_args(EngineArgs(**arguments | settings.arguments))
    except Exception as error:  # of many types
        raise EngineSettingsError(f"vLLM refuses engine.*, engine.arguments or the model: {error}") from error


def _kv_bytes(model_path: str, settings: EngineSettings, max_model_len: int) -> int:
    """Bytes for every slot at full length, plus one spare block per slot."""
    config = model_config(model_path)
    heads = config.num_key_value_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token = 2 * config.num_hidden_layers * heads * size * getattr(torch, settings.dtype).itemsize
    blocks = settings.slots * (-(-max_model_len // _CPU_BLOCK) + 1) + 1
    return int(token * blocks * _CPU_BLOCK)


def _sequence(pending: Pending, output: CompletionOutput) -> SampledSequence:
    tokens = np.array(output.token_ids, np.int32)
    assert output.logprobs is not None
    assert output.weight_versions is not None
    logprobs = [position[token].logprob for token, position in zip(output.token_ids, output.logprobs, strict=True)]
    versions = np.empty(len(tokens), np.int32)
    for span in output.weight_versions:
        versions[span.start : span.end] = int(span.version)
    finish: FinishReason = "stop" if output.finish_reason == "stop" else "length"
    return SampledSequence(
        sample_index=pending.sample_index,
        token_ids=tokens,
        behavior_logprobs=np.array(logprobs, np.float32),
        token_versions=versions,
        finish_reason=finish,
        started_s=pending.started_s,
        finished_s=now_s(),
    )
