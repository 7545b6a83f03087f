"""What an update's forward and backward cost per token on the CPU, by the shape of the rows.

    python -m benchmarks.learner.packed_rows [--rounds 3] [--long 3072] [--compile]

A decoder of two layers (width 256, 8 heads) on one thread; a process's CPU seconds are measured, so other work on the machine matters
little. Three comparisons, in turns, the fastest of the rounds each: the same short samples in rows of 512 and of 4,096 tokens; one
tree of 8 long completions beside separate rows; and memory beyond the weights, in a process of its own for each length of a row.
--compile: instead, the layers as they are and compiled (learner.compile), by rows of 512 and 2,048.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from corewarding.dataflow.carriers import TrainingSample
from corewarding.dataflow.ids import AskedId
from corewarding.learner.model import PolicyModel
from corewarding.learner.objective.packing import MicroBatch, pack

VOCABULARY = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", type=int, default=3072, help="tokens of each long completion")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.compile:
        compare_compiled(arguments.rounds)
        return
    model = decoder()
    short, long = (
        samples(questions=16, prompt=60, completion=50),
        samples(questions=1, prompt=200, completion=arguments.long),
    )
    tree, alone = 8 * (arguments.long + 200), arguments.long + 200
    for words, several, (wide, narrow) in (
        ("short samples, rows of 4,096 and of 512", short, (4096, 512)),
        (f"8 completions of {arguments.long:,}, one tree and separate rows", long, (tree, alone)),
    ):
        costs: dict[int, list[float]] = {wide: [], narrow: []}
        for _ in range(arguments.rounds):
            for row_tokens, measured in costs.items():
                measured.append(microseconds(model, several, row_tokens))
        first, second = (min(measured) for measured in costs.values())
        print(f"{words}: {first:.0f} and {second:.0f} us a token, ratio {first / second:.2f}", flush=True)
    spawn = multiprocessing.get_context("spawn")
    for row_tokens in (4096, 8192, 16384):
        with spawn.Pool(1) as pool:
            print(
                f"one row of {row_tokens:,}: {pool.apply(peak_mb, (row_tokens,)):.0f} MB beyond the model", flush=True
            )


def compare_compiled(rounds: int) -> None:
    plain, compiled = decoder(), decoder()
    compiled.compile_layers()
    several = samples(questions=16, prompt=60, completion=50)
    began = time.monotonic()
    microseconds(compiled, several, 1024)
    print(f"first pass of compiled layers: {time.monotonic() - began:.0f} s")
    for row_tokens in (512, 2048):
        microseconds(compiled, several, row_tokens)
        costs = [
            (microseconds(plain, several, row_tokens), microseconds(compiled, several, row_tokens))
            for _ in range(rounds)
        ]
        before, after = (min(column) for column in zip(*costs, strict=True))
        print(f"rows of {row_tokens:,}: {before:.0f} us a token, compiled {after:.0f} us, ratio {after / before:.2f}")


def decoder() -> PolicyModel:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=768, num_hidden_layers=2, num_attention_heads=8,
        num_key_value_heads=4, head_dim=64, max_position_embeddings=2**16,
    )  # fmt: skip
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return PolicyModel(model, chunk_tokens=512)


def samples(*, questions: int, prompt: int, completion: int) -> list[TrainingSample]:
    """8 completions of each question."""
    rng = np.random.default_rng(0)
    found = []
    for question in range(questions):
        group = AskedId(question_id=f"q{question}", epoch=0).group("original", "policy")
        prompt_ids = rng.integers(0, VOCABULARY, prompt).astype(np.int32)
        for index in range(8):
            found.append(
                TrainingSample(
                    id=group.completion(index),
                    prompt_token_ids=prompt_ids,
                    token_ids=rng.integers(0, VOCABULARY, completion).astype(np.int32),
                    behavior_logprobs=np.full(completion, -1, np.float32),
                    token_versions=np.zeros(completion, np.int32),
                    advantage=1.0,
                    loss_mask=np.ones(completion, bool),
                    temperature=1.0,
                    truncated=False,
                )
            )
    return found


def backward(model: PolicyModel, micros: Sequence[MicroBatch]) -> None:
    for micro in micros:
        model(micro)[0].sum().backward()
    model.zero_grad()


def microseconds(model: PolicyModel, several: Sequence[TrainingSample], row_tokens: int) -> float:
    """Per token of the samples, each counted with its prompt."""
    (micros,) = pack(several, micro_batch_tokens=max(4096, row_tokens), row_tokens=row_tokens)
    began = time.process_time()
    backward(model, micros)
    return (time.process_time() - began) / sum(sample.num_tokens for sample in several) * 1e6


def peak_mb(row_tokens: int) -> float:
    """Resident memory at its highest during one forward and backward, over that before it."""
    torch.set_num_threads(1)
    model = decoder()
    several = samples(questions=row_tokens // 1024, prompt=128, completion=112)
    (micros,) = pack(several, micro_batch_tokens=row_tokens, row_tokens=row_tokens)
    backward(model, pack(several[:8], micro_batch_tokens=1024, row_tokens=1024)[0])
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark begins again
    before = resident_mb("VmRSS")
    backward(model, micros)
    return resident_mb("VmHWM") - before


def resident_mb(name: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
