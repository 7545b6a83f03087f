"""Two small models, engines of every kind on them, and a learner that really sends weights."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from corewarding.actors.engine import EngineContext, RolloutEngine, SampledSequence
from corewarding.actors.engines import make_engine
from corewarding.actors.settings import EngineSettings, InflightMode
from corewarding.dataflow.carriers import RolloutTask
from corewarding.dataflow.ids import AskedId, Version
from corewarding.dataflow.weights import WeightManifest
from corewarding.weights.sender import WeightSender
from corewarding.weights.stream import Shard

VOCAB, MAX_LEN = 64, 160
ROOT = Path(__file__).resolve().parents[2]
SGLANG_PYTHON = os.environ.get("CW_SGLANG_PYTHON", str(ROOT / ".venv-sglang" / "bin" / "python"))


def missing(kind: str) -> str | None:
    """Why engines of this kind cannot run here, None where they can."""
    if kind == "vllm" and importlib.util.find_spec("vllm") is None:
        return "vllm is not installed in this environment: make engines, then .venv-vllm/bin/python -m pytest"
    if kind == "sglang" and not Path(SGLANG_PYTHON).exists():
        return f"no {SGLANG_PYTHON}: make engines"
    return None


def write_model(folder: Path, *, seed: int, tied: bool, kv_heads: int = 1) -> str:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=kv_heads, head_dim=32, tie_word_embeddings=tied, max_position_embeddings=512, initializer_range=0.2,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return str(folder)


def start(
    kind: str,
    folder: str,
    *,
    slots: int = 64,
    eos: tuple[int, ...] = (),
    inflight: InflightMode = "recompute",
    device: str = "cpu",
    **keys: Any,
) -> RolloutEngine:
    if kind == "sglang":
        keys.setdefault("python", SGLANG_PYTHON)
    return make_engine(
        EngineContext(
            settings=EngineSettings(kind=kind, slots=slots, prefill_tokens=64, **keys),
            model_path=folder,
            max_model_len=MAX_LEN,
            eos_token_ids=eos,
            device=device,
            inflight=inflight,
        )
    )


def task_of(
    number: int,
    *,
    temperature: float = 1.0,
    group_size: int = 4,
    max_new_tokens: int = 12,
    prompt_length: int | None = None,
    attempt: int = 0,
) -> RolloutTask:
    prompt = np.random.default_rng(number).integers(1, VOCAB, prompt_length or 3 + number % 9).astype(np.int32)
    return RolloutTask(
        id=AskedId(question_id=f"q{number}", epoch=0).group("original", "policy"),
        incarnation=0,
        attempt=attempt,
        group_size=group_size,
        prompt_token_ids=prompt,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        run_seed=7,
    )


async def run(engine: RolloutEngine, task: RolloutTask) -> list[SampledSequence]:
    return sorted([s async for s in engine.generate(task)], key=lambda s: s.sample_index)


@lru_cache(maxsize=8)
def model_of(folder: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def forward(folder: str, task: RolloutTask, sequence: SampledSequence) -> torch.Tensor:
    """[L, V] logits that predict each completion token, by transformers."""
    ids = torch.from_numpy(np.concatenate([task.prompt_token_ids, sequence.token_ids])).long()[None]
    with torch.no_grad():
        return model_of(folder)(ids, use_cache=False).logits[0, len(task.prompt_token_ids) - 1 : -1]  # type: ignore[no-any-return]


def logprobs_of(folder: str, task: RolloutTask, sequence: SampledSequence) -> np.ndarray:
    """[L] log-probability of each completion token at the task's temperature (1 where that is 0)."""
    logprobs = (forward(folder, task, sequence) / (task.temperature or 1.0)).log_softmax(-1)
    return logprobs.gather(-1, torch.from_numpy(sequence.token_ids).long()[:, None])[:, 0].numpy()


class Learner:
    """Rank 0 of a learner in this process: sends any model folder's weights."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self._sender = WeightSender(0, 1, self.device, bucket_bytes=1 << 16, wire_dtype=torch.float32)
        self._epoch = 0

    async def meet(self, *engines: RolloutEngine, backend: str = "gloo") -> None:
        self._epoch += 1
        rendezvous = self._sender.serve("policy", self._epoch, len(engines), backend, 30.0)
        joins = [engine.join(rendezvous, rank) for rank, engine in enumerate(engines, start=1)]
        await asyncio.gather(asyncio.to_thread(self._sender.connect, rendezvous), *joins)

    def announce(self, folder: str, updates: int) -> tuple[WeightManifest, list[Shard]]:
        shards = [
            Shard(name=name, shape=tuple(p.shape), start=0, local=p.detach().reshape(-1).to(self.device))
            for name, p in model_of(folder).named_parameters()
        ]
        version = Version(incarnation=0, updates=updates)
        return self._sender.manifest("policy", version, shards, with_checksums=True), shards

    async def publish(self, folder: str, updates: int, *engines: RolloutEngine) -> None:
        """begin, receive and commit on all engines."""
        manifest, shards = self.announce(folder, updates)
        for engine in engines:
            await engine.begin(manifest)
        await asyncio.gather(
            asyncio.to_thread(self._sender.send, "policy", manifest, shards), *(engine.receive() for engine in engines)
        )
        await asyncio.gather(*(engine.commit(manifest.version) for engine in engines))

    def close(self) -> None:
        self._sender.close("policy")
