"""Embedded engine beside transformers `generate`: `python benchmarks/engines.py [--questions 128] [--rounds 5]`.

Both sample 8 completions of each held-out question at temperature 1 from the same weights, in turns, on one thread. The engine
refills its slots as sequences end; `generate` runs batches of the same width to their longest member. Counted are the tokens up to
and including each completion's end; the engine also keeps every token's logprob and version, `generate` keeps neither.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

import torch
from transformers import AutoModelForCausalLM

from actors.engine import RolloutEngine
from actors.engines import make_engine
from actors.settings import EngineSettings
from dataflow.types import RolloutTask
from evals.tasks import evaluation_tasks
from launch.config import load_config
from questions.load import load_heldout
from questions.prompts import prepare
from questions.template import PromptTemplate


async def by_engine(engine: RolloutEngine, tasks: list[RolloutTask]) -> int:
    """Number of tokens sampled."""

    async def one(task: RolloutTask) -> int:
        return sum([len(sequence.token_ids) async for sequence in engine.generate(task)])

    return sum(await asyncio.gather(*map(one, tasks)))


@torch.inference_mode()
def by_generate(model: torch.nn.Module, tasks: list[RolloutTask], *, width: int, eos: tuple[int, ...]) -> int:
    """Number of tokens up to and including each end."""
    prompts = [torch.from_numpy(task.prompt_token_ids).long() for task in tasks for _ in range(task.group_size)]
    total = 0
    for start in range(0, len(prompts), width):
        batch = prompts[start : start + width]
        longest = max(map(len, batch))
        ids = torch.stack([torch.nn.functional.pad(prompt, (longest - len(prompt), 0)) for prompt in batch])
        mask = torch.stack([(torch.arange(longest) >= longest - len(prompt)).long() for prompt in batch])
        output = model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            max_new_tokens=tasks[0].max_new_tokens, eos_token_id=list(eos), pad_token_id=0,
        )[:, longest:]  # fmt: skip
        ended = torch.isin(output, torch.tensor(eos))
        first = torch.where(ended.any(1), ended.int().argmax(1) + 1, output.shape[1])
        total += int(first.sum())
    return total


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slots", type=int, default=128)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config("configs/cpu.yaml")
    template = PromptTemplate.from_folder(config.model_folder, system_prompt=config.data.system_prompt)
    heldout = prepare(
        load_heldout(config.data, seed=0),
        template,
        views=("original",),
        max_prompt_tokens=config.data.max_prompt_tokens,
    )
    tasks = [
        task
        for task in evaluation_tasks(
            heldout, num_questions=arguments.questions, samples=8, temperature=1.0, max_new_tokens=32, seed=0
        )
        if task.temperature > 0
    ]
    engine = make_engine(
        EngineSettings(slots=arguments.slots),
        model_path=config.model_folder,
        max_model_len=heldout.longest + 32,
        device=torch.device("cpu"),
        eos_token_ids=template.eos_token_ids,
    )
    model = AutoModelForCausalLM.from_pretrained(config.model_folder, dtype=torch.float32).eval()
    rates: dict[str, list[float]] = {"embedded engine": [], "transformers generate": []}
    for round_ in range(arguments.rounds + 1):
        began = time.perf_counter()
        tokens = await by_engine(engine, tasks)
        middle = time.perf_counter()
        others = by_generate(model, tasks, width=arguments.slots, eos=template.eos_token_ids)
        ended = time.perf_counter()
        if round_:  # the first warms up
            rates["embedded engine"].append(tokens / (middle - began))
            rates["transformers generate"].append(others / (ended - middle))
    await engine.close()
    print("| sampler | tokens/s, median | min | max |\n|---|---|---|---|")
    for name, values in rates.items():
        print(f"| {name} | {statistics.median(values):,.0f} | {min(values):,.0f} | {max(values):,.0f} |")
    pairs = [mine / theirs for mine, theirs in zip(*rates.values(), strict=True)]
    print(f"ratio, median of {len(pairs)} rounds: {statistics.median(pairs):.2f}x")


if __name__ == "__main__":
    asyncio.run(main())
