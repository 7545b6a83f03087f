"""Keys of the rollout side. Imports no torch: the configuration is read where no engine is installed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from corewarding.dataflow.settings import Settings

InflightMode = Literal["recompute", "keep_kv", "drain"]


class RolloutSettings(Settings):
    """What is sampled, and by how many actors."""

    group_size: int = Field(8, ge=1)
    """Completions per (question, view, source). At least 2: a group of one has no mean to be compared with."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature. Training samples with temperature as the only scaling (no top-p, no top-k)."""
    max_new_tokens: int = Field(1024, ge=1)
    """A completion is cut (finish reason `length`) after this many tokens."""
    policy_actors: int = Field(1, ge=1)
    """Rollout actors that sample from the policy."""
    teacher_actors: int = Field(1, ge=1)
    """Rollout actors that sample from the EMA teacher; started only by rules that ask a teacher."""
    cpus_per_actor: float = Field(0.5, gt=0)
    """CPUs Ray sets aside for one rollout actor; may be a fraction."""
    gpus_per_actor: float = Field(0.0, ge=0)
    """GPUs Ray sets aside for one rollout actor; 0 runs it on the CPU."""
    resources: dict[str, float] = Field(default_factory=dict)
    """Ray's custom resources that one rollout actor holds: it runs on nodes started with `--resources` that have them."""
    max_restarts: int = Field(3, ge=0)
    """How often a rollout actor that died is started again before the run gives up."""


class EngineSettings(Settings):
    """The sampler inside a rollout actor."""

    kind: str = "embedded"
    """`embedded`: our continuous-batching sampler. `vllm`: vLLM in the actor's process. `sglang`: an SGLang server that the actor
    starts, or the one at `url`. `scripted`: replays recorded completions from `script` (no model)."""
    python: str | None = None
    """Python of the environment that has vLLM or SGLang; None: the run's own. For vllm it needs corewarding and the same Ray, too."""
    slots: int = Field(128, ge=1)
    """Sequences decoded together; a slot is refilled as soon as its sequence ends."""
    max_model_len: int | None = Field(None, ge=2)
    """Longest prompt + completion in tokens; None: the longest templated prompt + rollout.max_new_tokens."""
    prefill_tokens: int = Field(8192, ge=1)
    """Prompt tokens prefilled in one forward pass, padding included (vllm: tokens of one step)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of weights and KV cache in the engine."""
    threads: int = Field(1, ge=1)
    """OpenMP threads of one engine. One process per core: oversubscribed threads are several times slower."""
    deterministic: bool = False
    """Tokens to the last bit depend on the weights, the prompt and the seed alone, not on what else is sampled: every step computes
    all slots over the whole cache, every prompt is prefilled alone. Embedded engine, one thread; slower while slots are free."""
    cores: tuple[int, ...] | None = None
    """CPU cores that all threads of an engine's process may use; None: any."""
    tensor_parallel: int = Field(1, ge=1)
    """GPUs, or on the CPU processes, that share one engine's model (vllm, sglang)."""
    memory_fraction: float = Field(0.9, gt=0, lt=1)
    """Of a GPU's memory, for weights and KV cache (vllm, sglang); where an actor has a share of a GPU, at most that."""
    kv_cache_mb: int | None = Field(None, ge=1)
    """KV cache of the engine (vllm); None: on a GPU what memory_fraction leaves, on a CPU room for all slots at full length."""
    quantization: str | None = None
    """Of the engine's weights, by the engine's own name for it, for example `fp8` (vllm, sglang)."""
    arguments: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Further arguments by the engine's own names (vllm: EngineArgs, sglang: ServerArgs); they win over what we set."""
    url: str | None = None
    """An SGLang server that runs already, for example http://node3:30000, left running at the end; it must serve `model.path`, to one
    actor of ours and nobody else, and reach that actor's node, since its weights come from there over gloo."""
    api_key: str | None = None
    """Of the server at `url`; a server of our own gets a fresh one."""
    start_timeout_s: float = Field(300.0, gt=0)
    """For an SGLang server to come up."""
    script: str | None = None
    """JSONL of recorded completions for `kind: scripted`: objects with `question` and `completions`."""
    script_seconds_per_token: float = Field(0.0, ge=0)
    """What one token of a replayed completion takes; 0: whole completions at once."""


class InflightSettings(Settings):
    """What happens to running completions when the weights are swapped."""

    mode: InflightMode = "recompute"
    """`recompute`: they live on, their KV cache is rebuilt under the new weights. `keep_kv`: they live on over the old cache; a
    swap costs nothing, but their logprobs are no model's. `drain`: nothing new starts until they have ended; every completion
    is of one version, and publish.timeout_s must exceed the time of the longest."""
