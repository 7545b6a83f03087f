"""Every supported architecture as a toy model: packed rows and shared prompts beside one transformers forward for each sequence.

    python -m benchmarks.models.architectures

Prints for each toy the largest difference of log-probabilities, the distance of the gradients as a share of their norm, the mean
difference if its windows or its logit scale were dropped, and whether the names on the wire are those of the saved folder.
Takes half a minute on one core.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from corewarding.learner.model import PolicyModel
from corewarding.learner.objective.packing import MicroBatch, pack
from corewarding.weights.architectures import FULL
from corewarding.weights.names import parts_of
from tests.toy_models import TOYS, toy_model, write_toy
from tests.unit.learner.gradients import distance, samples_of, separate


def main() -> None:
    samples = {sample.id: sample for sample in samples_of(0, num=8, group_size=4)}
    (micro,) = pack(list(samples.values()), micro_batch_tokens=10**6, row_tokens=120)[0]
    print(f"{len(samples)} completions, {len(micro.target_T)} tokens, rows of {micro.input_ids.shape[1]}; float32")
    print(
        "| toy | packed - plain, largest | gradient, share of norm | windows or scale dropped, mean | names |\n|---|---|---|---|---|"
    )
    for name in TOYS:
        plain = toy_model(name).eval()
        expected = separate(plain, [samples[one] for one in micro.ids])
        policy = PolicyModel(toy_model(name, attention="sdpa").eval(), chunk_tokens=64)
        packed = policy(micro)[0]
        largest = float((packed - expected).abs().max())
        share = distance(_gradient(policy.model, packed), _gradient(plain, expected))
        print(f"| {name} | {largest:.1e} | {share:.1e} | {_dropped(policy, micro, expected)} | {_names(name)} |")


def _gradient(model: Any, logprobs: Tensor) -> dict[str, Tensor]:
    (logprobs * torch.linspace(-1, 1, len(logprobs))).sum().backward()
    return {key: p.grad for key, p in model.named_parameters() if p.grad is not None}


@torch.no_grad()
def _dropped(policy: PolicyModel, micro: MicroBatch, expected: Tensor) -> str:
    """The mean difference without the windows, or without the scale, of a model that has them."""
    if any(policy.windows.values()):
        policy.windows = {FULL: None}
    elif policy.head.logit_scale != 1:
        policy.head.logit_scale = 1.0
    else:
        return ""
    return f"{float((policy(micro)[0] - expected).abs().mean()):.2f}"


def _names(name: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(write_toy(name, Path(folder))) / "model.safetensors"
        with safe_open(file, "pt") as stored:  # type: ignore[no-untyped-call]
            saved = set(stored.keys())
    sent = {part.name for parts in parts_of(toy_model(name)).values() for part in parts}
    return "the same" if sent == saved else f"{len(sent ^ saved)} differ"


if __name__ == "__main__":
    main()
