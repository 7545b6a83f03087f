"""Tiny Qwen3 models, tasks for them, and what a transformers forward says of a sampled sequence."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from corewarding.actors.engine import RolloutEngine, SampledSequence
from corewarding.dataflow.carriers import RolloutTask
from tests.fakes import fake_task

VOCAB = 64


def write_model(
    folder: Path, *, seed: int = 0, tied: bool = True, kv_heads: int = 1, vocab: int = VOCAB, spread: float = 0.2
) -> str:
    """A model of random weights with standard deviation `spread`; its head size suits every engine's CPU kernels."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocab, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=kv_heads, head_dim=32, tie_word_embeddings=tied, max_position_embeddings=512,
        initializer_range=spread, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return str(folder)


def task_of(
    number: int,
    *,
    temperature: float = 1.0,
    group_size: int = 4,
    max_new_tokens: int = 12,
    prompt_length: int | None = None,
    attempt: int = 0,
) -> RolloutTask:
    """A task with a random prompt that `number` seeds."""
    prompt = np.random.default_rng(number).integers(1, VOCAB, prompt_length or 3 + number % 9).astype(np.int32)
    return fake_task(
        f"q{number}",
        prompt,
        group_size=group_size,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        attempt=attempt,
        run_seed=7,
    )


async def run(engine: RolloutEngine, task: RolloutTask) -> list[SampledSequence]:
    """The task's sequences by sample index."""
    return sorted([s async for s in engine.generate(task)], key=lambda s: s.sample_index)


@lru_cache(maxsize=8)
def model_of(folder: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def forward(folder: str, task: RolloutTask, sequence: SampledSequence) -> torch.Tensor:
    """[L, V] logits that predict each completion token, by transformers."""
    ids = torch.from_numpy(np.concatenate([task.prompt_token_ids, sequence.token_ids])).long()[None]
    with torch.no_grad():
        logits: torch.Tensor = model_of(folder)(ids, use_cache=False).logits
    return logits[0, len(task.prompt_token_ids) - 1 : -1]


def chosen_logprobs(logits: torch.Tensor, sequence: SampledSequence, temperature: float) -> np.ndarray:
    """[L] log-probability of each completion token, from its [L, V] logits."""
    logprobs = (logits / temperature).log_softmax(-1)
    return logprobs.gather(-1, torch.from_numpy(sequence.token_ids).long()[:, None])[:, 0].numpy()


def logprobs_of(folder: str, task: RolloutTask, sequence: SampledSequence) -> np.ndarray:
    """[L] log-probability of each completion token at the task's temperature (1 if that is 0)."""
    return chosen_logprobs(forward(folder, task, sequence), sequence, task.temperature or 1.0)
