"""The arguments and the environment an SGLang server is started with."""

from __future__ import annotations

from typing import Any

from corewarding.actors.engine import EngineContext

_SPARE = 8  # tokens added to the context length, because the server refuses requests that fill it exactly
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


def server_arguments(context: EngineContext) -> dict[str, Any]:
    """ServerArgs by name; engine.arguments override ours."""
    settings, length = context.settings, context.max_model_len + _SPARE
    arguments: dict[str, Any] = {
        "model_path": context.model_path,
        "skip_tokenizer_init": True,
        "skip_server_warmup": True,
        "dtype": settings.dtype,
        "context_length": length,
        "max_running_requests": settings.slots,
        "tensor_parallel_size": settings.tensor_parallel,
        "quantization": settings.quantization,
        "mem_fraction_static": settings.memory_fraction,
        "weight_version": str(context.version.updates),
        "random_seed": context.seed,
        "log_level": "warning",
    }
    if context.device == "cpu":
        arguments |= _CPU_ARGUMENTS | {"max_total_tokens": (settings.slots + 1) * length, "mem_fraction_static": 0.2}
    return arguments | settings.arguments


def server_environment(context: EngineContext) -> dict[str, str]:
    """Environment variables of the server: its threads and, on a CPU, the cores of each worker."""
    settings = context.settings
    environment = {"SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN": "1", "OMP_NUM_THREADS": str(settings.threads)}
    if context.device == "cpu":
        ranks, each = settings.tensor_parallel, settings.threads
        cores = settings.cores or tuple(range(ranks * each))
        groups = (cores[rank * each : (rank + 1) * each] or cores for rank in range(ranks))
        environment |= {
            "SGLANG_USE_CPU_ENGINE": "1",
            "SGLANG_CPU_OMP_THREADS_BIND": "|".join(",".join(map(str, group)) for group in groups),
            "CUDA_VISIBLE_DEVICES": "",
        }
    return environment
