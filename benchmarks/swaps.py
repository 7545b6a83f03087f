"""Checks long completions across weight swaps.

    python -m benchmarks.swaps [--sequences 64] [--tokens 256] [--swaps 2] [--slots 32]

For each `inflight.mode`, the embedded engine samples completions of exactly --tokens tokens (end of sequence ignored) while new
weights arrive at even intervals. Prints the share of completions with tokens of two or more versions, and the largest difference
between a token's logprob and a transformers forward with the weights of its version: over the whole prefix, or for `keep_kv` over the
keys and values that each version left. With `drain` no completion may have two versions. The last column is the mean time in which an
engine took new weights in, without what `drain` samples before.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM

from corewarding.actors.embedded.engine import EmbeddedEngine
from corewarding.actors.engine import EngineContext, SampledSequence
from corewarding.actors.settings import EngineSettings, InflightMode
from corewarding.dataflow.carriers import RolloutTask
from corewarding.dataflow.ids import Version
from corewarding.evals.tasks import evaluation_tasks
from corewarding.launch.config.load import load_config
from corewarding.questions.load import load_heldout
from corewarding.questions.prompts import prepare
from corewarding.questions.template import PromptTemplate

Weights = dict[str, Tensor]


def perturbed(weights: Weights, seed: int) -> Weights:
    """Similar weights: noise of 1% of each tensor's standard deviation is added."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + 0.01 * tensor.std() * torch.randn(tensor.shape, generator=generator)
        for name, tensor in weights.items()
    }


async def sampled(
    tasks: list[RolloutTask], versions: list[Weights], mode: InflightMode, path: str, tokens: int, slots: int
) -> tuple[list[tuple[RolloutTask, SampledSequence]], float]:
    """(all sequences, the mean seconds of a swap). Commits version v once v / (number of versions) of all tokens are sampled."""
    engine = EmbeddedEngine(
        EngineContext(
            settings=EngineSettings(slots=slots),
            model_path=path,
            max_model_len=max(len(task.prompt_token_ids) for task in tasks) + tokens,
            inflight=mode,
        )
    )

    async def run(task: RolloutTask) -> list[tuple[RolloutTask, SampledSequence]]:
        return [(task, sequence) async for sequence in engine.generate(task)]

    running = [asyncio.create_task(run(task)) for task in tasks]
    total = tokens * sum(task.group_size for task in tasks)
    for number, weights in enumerate(versions[1:], start=1):
        while engine.stats().generated_tokens < total * number / len(versions):
            await asyncio.sleep(0.002)
        await engine.load_weights(weights, Version(incarnation=0, updates=number))
    groups = await asyncio.gather(*running)
    swap_s = engine.stats().swap_s / max(1, len(versions) - 1)
    await engine.close()
    return [one for group in groups for one in group], swap_s


@torch.inference_mode()
def expected(
    model: Any, versions: list[Weights], mode: InflightMode, task: RolloutTask, sequence: SampledSequence
) -> NDArray[np.float32]:
    """[L] logprobs of the sequence's tokens by transformers."""
    ids = torch.from_numpy(np.concatenate([task.prompt_token_ids, sequence.token_ids[:-1]])).long()[None]
    start, rows = len(task.prompt_token_ids) - 1, []
    cache, done = None, 0
    for version in np.unique(sequence.token_versions):
        model.load_state_dict(versions[version], strict=False)
        last = start + int(
            np.flatnonzero(sequence.token_versions == version)[-1]
        )  # its logits predict the last such token
        if mode == "keep_kv":
            output = model(ids[:, done : last + 1], past_key_values=cache, use_cache=True)
            logits, cache = output.logits[0], output.past_key_values
        else:
            logits = model(ids[:, : last + 1], use_cache=False).logits[0, done:]
        rows.append(logits[max(0, start - done) :])
        done = last + 1
    chosen = torch.from_numpy(sequence.token_ids).long()[:, None]
    logprobs: NDArray[np.float32] = torch.cat(rows).log_softmax(-1).gather(-1, chosen)[:, 0].numpy()
    return logprobs


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--swaps", type=int, default=2)
    parser.add_argument("--slots", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config("configs/cpu.yaml")
    template = PromptTemplate.from_folder(config.model_folder, system_prompt=config.data.system_prompt)
    questions = load_heldout(config.data, seed=0)
    heldout = prepare(questions, template, views=("original",), max_prompt_tokens=config.data.max_prompt_tokens)
    asked = evaluation_tasks(
        heldout, num_questions=arguments.sequences // 8, samples=8, temperature=1.0, max_new_tokens=1, seed=0
    )
    tasks = [dataclasses.replace(task, max_new_tokens=arguments.tokens) for task in asked if task.temperature > 0]
    model: Any = AutoModelForCausalLM.from_pretrained(config.model_folder, dtype=torch.float32).eval()
    first = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    versions = [first, *(perturbed(first, seed) for seed in range(arguments.swaps))]
    print(
        "| inflight.mode | completions | two versions or more | swaps crossed, mean | largest difference of a logprob | swap ms |"
    )
    print("|---|---|---|---|---|---|")
    for mode in get_args(InflightMode):
        sequences, swap_s = await sampled(tasks, versions, mode, config.model_folder, arguments.tokens, arguments.slots)
        assert all(len(one.token_ids) == arguments.tokens for _, one in sequences)
        crossed = [len(np.unique(one.token_versions)) - 1 for _, one in sequences]
        worst = max(
            float(np.abs(expected(model, versions, mode, task, one) - one.behavior_logprobs).max())
            for task, one in sequences
        )
        share = np.mean(np.array(crossed) > 0)
        print(
            f"| {mode} | {len(sequences)} | {share:.0%} | {np.mean(crossed):.2f} | {worst:.1e} | {1e3 * swap_s:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    asyncio.run(main())
