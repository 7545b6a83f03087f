"""Compares samplers on one core.

    .venv-vllm/bin/python -m benchmarks.engines [--rounds 5] [--large] [--without sglang]

Each sampler in turn writes 256 concurrent completions of fixed, uneven lengths (the longest over 6 times the mean, end of sequence
ignored) from the same weights and prompts: our engine, vLLM, an SGLang server (its Python: --sglang-python) and transformers
`generate`, which runs one batch of the same width until its longest member ends. All processes are pinned to one core. Only requested
tokens count. The engines keep every token's logprob and version, `generate` keeps none. --large uses 50 million random parameters.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from corewarding.actors.engine import EngineContext, RolloutEngine
from corewarding.actors.engines import make_engine
from corewarding.actors.settings import EngineSettings
from corewarding.dataflow.carriers import RolloutTask
from corewarding.dataflow.ids import AskedId

WIDTH, PROMPT = 256, 40


def uneven_lengths(num: int, mean: int) -> list[int]:
    """Quantiles of an exponential distribution, shuffled: the longest is over six times the mean."""
    quantiles = -np.log1p(-(np.arange(num) + 0.5) / num) * mean
    return [int(length) for length in np.random.default_rng(0).permutation(np.maximum(1, quantiles.round()))]


def make_tasks(vocabulary: int, lengths: list[int], round_: int) -> list[RolloutTask]:
    draws = np.random.default_rng(round_)  # new prompts each round, so that no cache helps
    return [
        RolloutTask(
            id=AskedId(question_id=f"q{index}", epoch=round_).group("original", "policy"),
            incarnation=0,
            attempt=0,
            group_size=1,
            prompt_token_ids=draws.integers(1, vocabulary, PROMPT).astype(np.int32),
            temperature=1.0,
            max_new_tokens=length,
            run_seed=0,
        )
        for index, length in enumerate(lengths)
    ]


async def by_engine(engine: RolloutEngine, tasks: list[RolloutTask]) -> None:
    async def one(task: RolloutTask) -> None:
        async for sequence in engine.generate(task):
            assert len(sequence.token_ids) == task.max_new_tokens

    await asyncio.gather(*map(one, tasks))


@torch.inference_mode()
def by_generate(model: torch.nn.Module, tasks: list[RolloutTask]) -> None:
    ids = torch.from_numpy(np.stack([task.prompt_token_ids for task in tasks])).long()
    longest = max(task.max_new_tokens for task in tasks)
    output = model.generate(  # type: ignore[operator]
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
        min_new_tokens=longest, max_new_tokens=longest, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    assert output.shape[1] == PROMPT + longest


def large_model() -> str:
    """A folder with 50 million random parameters."""
    config = Qwen3Config(
        vocab_size=8192, hidden_size=512, intermediate_size=1536, num_hidden_layers=14, num_attention_heads=8,
        num_key_value_heads=4, head_dim=64, tie_word_embeddings=True, max_position_embeddings=1024,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model, folder = Qwen3ForCausalLM(config), tempfile.mkdtemp()
    model.save_pretrained(folder)
    print(f"model of {sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters")
    return folder


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--mean", type=int, default=40, help="length of a completion")
    parser.add_argument("--model", default="models/arithmetic-base")
    parser.add_argument("--sglang-python", default=".venv-sglang/bin/python")
    parser.add_argument("--without", nargs="*", default=[], choices=["vllm", "sglang"])
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {arguments.core})
    torch.set_num_threads(1)
    path = large_model() if arguments.large else arguments.model
    lengths = uneven_lengths(WIDTH, arguments.mean)
    print(
        f"{WIDTH} completions, mean length {statistics.fmean(lengths):.0f}, longest {max(lengths)}, prompts of {PROMPT}"
    )
    engines = {
        kind: make_engine(
            EngineContext(
                settings=EngineSettings(
                    kind=kind, slots=WIDTH, python=arguments.sglang_python if kind == "sglang" else None
                ),
                model_path=path,
                max_model_len=PROMPT + max(lengths),
            )
        )
        for kind in ("embedded", "vllm", "sglang")
        if kind not in arguments.without
    }
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    seconds: dict[str, list[float]] = {name: [] for name in (*engines, "generate")}
    for round_ in range(arguments.rounds + 1):
        tasks = make_tasks(model.config.vocab_size, lengths, round_)
        for name, times in seconds.items():
            began = time.perf_counter()
            if name == "generate":
                by_generate(model, tasks)
            else:
                await by_engine(engines[name], tasks)
            if round_:  # the first round is a warm-up
                times.append(time.perf_counter() - began)
    for engine in engines.values():
        await engine.close()
    print("\n| sampler | tokens/s, median | min | max | embedded is, median of rounds |\n|---|---|---|---|---|")
    for name, times in seconds.items():
        rates = [sum(lengths) / took for took in times]
        ratio = statistics.median(theirs / ours for ours, theirs in zip(seconds["embedded"], times, strict=True))
        print(f"| {name} | {statistics.median(rates):,.0f} | {min(rates):,.0f} | {max(rates):,.0f} | {ratio:.2f}x |")


if __name__ == "__main__":
    asyncio.run(main())
