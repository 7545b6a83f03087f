"""Configuration keys of the rollout side. Imports no torch, so a configuration can be read without any engine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from corewarding.dataflow.settings import (
    Amount,
    Core,
    CPUs,
    Fraction,
    GPUs,
    Number,
    Processes,
    Seconds,
    Settings,
    Threads,
    Tokens,
    Unit,
    Whole,
)

InflightMode = Literal["recompute", "keep_kv", "drain"]


class RolloutSettings(Settings):
    """What is sampled, and by how many actors."""

    group_size: Annotated[int, Unit("completions")] = Field(8, ge=1, le=10**5)
    """Completions per question, wording and sampler (policy or teacher). At least 2: a group of one has no mean to compare with."""
    vote_size: Annotated[int, Unit("completions")] | None = Field(None, ge=2)
    """Completions of a group that elects labels, at least group_size; of a trained group the first group_size are trained, the others
    only vote (TTRL votes on 64 and trains 16). None: group_size."""
    temperature: Number = Field(1.0, ge=0.01)
    """Sampling temperature. Training uses neither top-p nor top-k."""
    max_new_tokens: Tokens = Field(1024, ge=1)
    """Longest completion, in tokens; a longer one is cut, with finish reason `length`."""
    policy_actors: Processes = Field(1, ge=1, le=10**4)
    """Number of rollout actors that sample from the policy, a process each."""
    teacher_actors: Processes = Field(1, ge=0, le=10**4)
    """Number of rollout actors that sample from the EMA teacher, a process each; started only if the rule needs a teacher, then at
    least 1."""
    cpus_per_actor: CPUs = Field(0.5, gt=0)
    """CPUs that Ray reserves for one rollout actor; may be a fraction."""
    gpus_per_actor: GPUs = Field(0.0, ge=0)
    """GPUs that Ray reserves for one rollout actor; 0 runs it on the CPU, a fraction shares a GPU."""
    resources: dict[str, Amount] = Field(default_factory=dict)
    """Custom Ray resources of one rollout actor; it runs on nodes that were started with them (`ray start --resources`)."""
    max_restarts: Whole = Field(5, ge=0)
    """How often one rollout actor may die and be restarted within failure_window_s; once more ends the run. Restarts that follow each
    other wait 0, 2, 4, 8, ... seconds."""
    max_failed_questions: Whole = Field(8, ge=0)
    """How many questions may be dropped within failure_window_s because a task of theirs raised an error on two attempts; one more
    ends the run."""
    failure_window_s: Seconds = Field(600.0, gt=0)
    """Seconds in which max_restarts and max_failed_questions count; failures before that are forgotten."""
    start_timeout_s: Seconds = Field(300.0, gt=0)
    """Seconds in which a rollout actor must have started, with its engine and the model in it; also when it is restarted."""
    silent_s: Seconds = Field(30.0, gt=0)
    """Seconds without an answer after which a rollout actor counts as dead: its process is ended and another takes its tasks."""


class EngineSettings(Settings):
    """The sampler inside a rollout actor."""

    kind: str = "embedded"
    """`embedded`: our continuous-batching sampler. `vllm`: vLLM in the actor's process. `sglang`: an SGLang server that the actor
    starts, or the one at `url`. `scripted`: replays recorded completions from `script`, without a model. Or a plug-in's engine."""
    python: str | None = None
    """Python interpreter that has vLLM or SGLang; None: the run's own. For vllm it also needs corewarding and the same Ray."""
    slots: Annotated[int, Unit("sequences")] = Field(128, ge=1)
    """Sequences decoded together. A slot is refilled as soon as its sequence ends."""
    max_model_len: Tokens | None = Field(None, ge=2)
    """Longest prompt + completion, in tokens; None: the longest prompt with its template + rollout.max_new_tokens."""
    prefill_tokens: Tokens = Field(8192, ge=1)
    """Prompt tokens prefilled in one forward pass, including padding (vllm: tokens of one step)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the engine's weights and KV cache."""
    threads: Threads = Field(1, ge=1)
    """OpenMP threads of one engine. More threads than cores are several times slower."""
    deterministic: bool = False
    """Makes tokens and logprobs depend, to the last bit, only on weights, prompt and seed, not on other sequences: every step
    computes all slots over the whole cache, and every prompt is prefilled alone. Needs the embedded engine and one thread; slower
    while slots are free."""
    request_seeds: bool | None = None
    """Gives every completion its own random stream, so that the same weights give it the same tokens again (SGLang only in its
    deterministic mode). false: an engine draws from one stream of its own (vllm, sglang), which is faster on a GPU, where vLLM samples
    each seeded sequence by a call of its own. None: false for vllm and sglang on a GPU, else true."""
    cores: tuple[Core, ...] | None = Field(None, min_length=1)
    """CPU cores, by number, for all threads of an engine's process; None: any."""
    tensor_parallel: Annotated[int, Unit("GPUs")] = Field(1, ge=1)
    """GPUs (on the CPU: processes) that share one engine's model (vllm, sglang)."""
    memory_fraction: Fraction = Field(0.9, gt=0, lt=1)
    """Fraction of a GPU's memory for weights and KV cache (vllm, sglang); at most the actor's share of the GPU."""
    kv_cache_mb: Annotated[int, Unit("MiB")] | None = Field(None, ge=1)
    """KV cache in MiB (vllm); None: on a GPU what memory_fraction leaves, on the CPU enough for all slots at full length."""
    quantization: str | None = None
    """Quantization of the weights by the engine's own name, for example `fp8` (vllm, sglang); None: none."""
    arguments: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """More arguments by the engine's own names (vllm: EngineArgs, sglang: ServerArgs); they override ours."""
    url: str | None = None
    """A running SGLang server, for example http://node3:30000; it is left running at the end. It must serve `model.path` to one actor
    and nobody else, and reach that actor's node, which sends it weights over gloo. None: the actor starts its own engine."""
    api_key: str | None = None
    """API key of the server at `url`; a server that the actor starts gets a new key. Masked where it is printed or saved."""
    start_timeout_s: Seconds = Field(300.0, gt=0)
    """Seconds until an SGLang server must be healthy."""
    script: str | None = None
    """JSONL file of recorded completions for `kind: scripted`: objects with `question` and `completions`."""
    script_seconds_per_token: Seconds = Field(0.0, ge=0)
    """Seconds per token of a replayed completion; 0: no delay."""


class InflightSettings(Settings):
    """What happens to running completions at a swap of weights."""

    mode: InflightMode = "recompute"
    """`recompute`: they continue, and their KV cache is rebuilt under the new weights. `keep_kv`: they continue with the old cache;
    the swap is free, but their logprobs belong to no single model. `drain`: no completion starts until they have ended; every
    completion has one version, and publish.timeout_s must exceed the longest completion's time."""
