"""The bfloat16 learner on packed rows beside a float32 forward of transformers, one sequence at a time."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from corewarding.dataflow.carriers import TrainingSample
from corewarding.learner.learner import Learner
from corewarding.learner.objective.loss import objective
from corewarding.learner.objective.packing import pack
from corewarding.learner.settings import LearnerPlan, LearnerSettings
from tests.unit.learner.conftest import make_samples
from tests.unit.learner.gradients import chosen, ids_of


def samples_of() -> list[TrainingSample]:
    """Groups of 4, some longer than a block of the kernels."""
    rng = np.random.default_rng(0)
    found = []
    for sample in make_samples(4, group_size=4):
        num = int(rng.integers(20, 400))
        lengthened = {
            "token_ids": rng.integers(1, 50, num).astype(np.int32),
            "behavior_logprobs": np.full(num, -3.9, np.float32),
            "token_versions": np.zeros(num, np.int32),
            "loss_mask": np.ones(num, bool),
        }
        found.append(dataclasses.replace(sample, **lengthened))
    return found


def test_packed_bfloat16_is_near_an_eager_float32_forward(device: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=50, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=2048, architectures=["Qwen3ForCausalLM"],
    )  # fmt: skip
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    model.save_pretrained(tmp_path)
    samples = {sample.id: sample for sample in samples_of()}
    settings = LearnerSettings.model_validate(
        {"param_dtype": "bfloat16", "row_tokens": 1024, "micro_batch_tokens": 2048, "device": device}
        | ({"gpus_per_rank": 1} if device == "cuda" else {})
    )
    plan = LearnerPlan(model_path=str(tmp_path), kl_coef=0.0, kl_reference="none", keep_teacher=False, learner=settings)
    learner = Learner(plan)
    found = dict(zip(samples, learner.logprobs(list(samples.values()), "policy"), strict=True))
    learner.accumulate(learner.pack(list(samples.values())))

    (micro,) = pack(list(samples.values()), micro_batch_tokens=10**6, row_tokens=1)[0]
    parts = [chosen(model(ids_of(samples[one])[None], use_cache=False).logits[0], samples[one]) for one in micro.ids]
    differences = [np.abs(part.detach().numpy() - found[one]) for part, one in zip(parts, micro.ids, strict=True)]
    assert np.concatenate(differences).mean() <= 0.01
    step = objective(
        torch.cat(parts), micro.tokens, reference_T=None, beta=0.0, loss=plan.loss, correction=plan.correction
    )
    step.loss.backward()
    ours = torch.cat([p.grad.full_tensor().cpu().flatten() for p in learner.model.parameters()])
    names = [name for name, _ in learner.model.model.named_parameters()]
    plain = dict(model.named_parameters())
    theirs = torch.cat([plain[name].grad.flatten() for name in names])
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) >= 0.995
