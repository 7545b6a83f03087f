"""The learner and the samples that are measured on a GPU: as wide as a known model, with 8 layers and random weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.distributed.device_mesh import init_device_mesh
from transformers import Qwen3Config

from corewarding.dataflow.carriers import TrainingSample
from corewarding.dataflow.ids import AskedId
from corewarding.launch.config.load import make_config
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.plan.memory import rank_memory
from corewarding.launch.plan.trace import activations
from corewarding.learner.learner import Learner, device_of
from corewarding.learner.model import LoadedPolicy, PolicyModel, local_shard, shard
from corewarding.learner.settings import LearnerPlan
from corewarding.weights.model_loading import allocate, empty_model
from corewarding.weights.model_shape import shape_of

LAYERS = 8
WIDTHS = {"0.6B": (1024, 3072, 16), "1.7B": (2048, 6144, 16), "8B": (4096, 12288, 32)}
"""Hidden size, MLP size, heads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of what is measured."""

    widths: dict[str, tuple[int, int, int]]
    vocabulary: int
    tokens: int  # of an update
    mean: int  # tokens of a completion
    longest: int
    head_tokens: int
    head_width: int
    sync_mb: int
    rounds: int


FULL = Size(
    widths=WIDTHS, vocabulary=151_936, tokens=32_768, mean=830, longest=3072, head_tokens=16_384, head_width=1024,
    sync_mb=3400, rounds=5,
)  # fmt: skip
SMALL = Size(
    widths={"0.6B": (32, 64, 2)}, vocabulary=128, tokens=512, mean=24, longest=64, head_tokens=256, head_width=32,
    sync_mb=8, rounds=2,
)  # fmt: skip


def learner_of(size: Size, name: str, folder: str, device: str) -> tuple[Learner, Qwen3Config]:
    """A learner with random weights, which are never on the disk."""
    hidden, mlp, heads = size.widths[name]
    config = Qwen3Config(
        vocab_size=size.vocabulary, hidden_size=hidden, intermediate_size=mlp, num_hidden_layers=LAYERS,
        num_attention_heads=heads, num_key_value_heads=min(8, heads), head_dim=128 if hidden > 100 else 16,
        tie_word_embeddings=hidden < 4096, max_position_embeddings=2**16, architectures=["Qwen3ForCausalLM"],
    )  # fmt: skip
    Path(folder, "config.json").write_text(json.dumps(config.to_dict()))
    plan = LearnerPlan(
        model_path=folder,
        kl_coef=0.0,
        kl_reference="none",
        keep_teacher=False,
        learner=run_config(size, device).learner,
    )
    where = device_of(plan)
    policy = PolicyModel(
        empty_model(folder, dtype=torch.float32, attention="sdpa", device=where),
        chunk_tokens=plan.learner.logprob_chunk_tokens,
    )
    policy.model.train()
    shard(policy, init_device_mesh(where.type, (1,)), param_dtype=torch.bfloat16)
    allocate(policy, where)
    for parameter in policy.parameters():
        values = local_shard(parameter).detach()
        values.normal_(0, 0.02) if values.ndim > 1 else values.fill_(1)
    return Learner(plan, loaded=LoadedPolicy(model=policy, base_dtypes=[])), config


def run_config(size: Size, device: str) -> TrainConfig:
    """The keys of a run that trains so."""
    keys = {
        "param_dtype": "bfloat16", "micro_batch_tokens": size.tokens // 2, "row_tokens": size.tokens // 4,
        "logprob_chunk_tokens": 1024, "device": device, "gpus_per_rank": float(device == "cuda"),
    }  # fmt: skip
    return make_config({"rule": "random", "kl": {"coef": 0}, "learner": keys}, where="benchmark")


def samples_of(size: Size) -> tuple[TrainingSample, ...]:
    """Groups of 8 completions; lengths are drawn from an exponential distribution and cut."""
    rng = np.random.default_rng(0)
    found: list[TrainingSample] = []
    left, question = size.tokens, 0
    while left > 0:
        group = AskedId(question_id=f"q{question:05d}", epoch=0).group("original", "policy")
        prompt = rng.integers(0, size.vocabulary, size.mean // 8 + 1)
        for index in range(8):
            num = int(min(size.longest, 8 + rng.exponential(size.mean), max(left, 8)))
            left -= num
            found.append(
                TrainingSample(
                    id=group.completion(index),
                    prompt_token_ids=prompt,
                    token_ids=rng.integers(0, size.vocabulary, num),
                    behavior_logprobs=np.full(num, -10.0),
                    token_versions=np.zeros(num),
                    advantage=float(rng.normal()),
                    loss_mask=np.ones(num, bool),
                    temperature=1.0,
                    truncated=False,
                )
            )
            if left <= 0:
                break
        question += 1
    return tuple(found)


def flop(config: Qwen3Config, samples: Sequence[TrainingSample]) -> float:
    """Of one update without recomputing; a prompt counts once for its group, as it is computed."""
    layer = config.hidden_size * config.head_dim * (2 * config.num_attention_heads + 2 * config.num_key_value_heads)
    layer += 3 * config.hidden_size * config.intermediate_size
    prompts = {sample.id.group: len(sample.prompt_token_ids) for sample in samples}
    completions = sum(len(sample.token_ids) for sample in samples)
    linear = 6 * (
        LAYERS * layer * (completions + sum(prompts.values())) + config.vocab_size * config.hidden_size * completions
    )
    pairs = sum(num**2 / 2 for num in prompts.values())
    pairs += sum(len(s.token_ids) * (len(s.prompt_token_ids) + len(s.token_ids) / 2) for s in samples)
    return linear + 12 * LAYERS * config.num_attention_heads * config.head_dim * pairs


def planned_peak(learner: Learner, config: Qwen3Config) -> int:
    """What the plan says of the fullest micro-batch that this update has."""
    its = learner.plan.learner
    live = activations(
        config,
        dtype="bfloat16",
        tokens=its.micro_batch_tokens,
        chunk=its.logprob_chunk_tokens,
        checkpointing=its.activation_checkpointing,
    )
    run = make_config({"rule": "random", "kl": {"coef": 0}, "learner": its.model_dump()}, where="benchmark")
    return rank_memory(run, shape_of(learner.model.model), live).peak
