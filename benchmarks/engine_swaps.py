"""Measures many weight swaps while requests run.

    .venv-vllm/bin/python -m benchmarks.engine_swaps [--swaps 50] [--kinds embedded vllm sglang]

32 completions always run; weights arrive over the real transport and are committed, one swap after another. Prints for each engine
and mode the median and largest time of pause + update + resume (for drain: without the draining). Fails if a request is lost or a
token has a version that the engine did not hold while its completion ran.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import statistics
import tempfile
from pathlib import Path

import numpy as np

from corewarding.actors.engine import RolloutEngine
from corewarding.actors.settings import InflightMode
from tests.engines.world import Learner, start
from tests.tiny_models import run, task_of, write_model

RUNNING, TOKENS, MODES = 32, 60, ("recompute", "keep_kv", "drain")


async def keep_busy(engine: RolloutEngine, done: asyncio.Event) -> tuple[int, int]:
    """Keeps RUNNING completions going until `done`. Returns how many ended, and how many of them had tokens of two versions."""
    numbers, crossed = itertools.count(), [0, 0]

    async def one() -> None:
        while not done.is_set():
            number = next(numbers)
            before = engine.version.updates
            task = dataclasses.replace(task_of(number % 50, group_size=1, max_new_tokens=TOKENS), attempt=number)
            (sequence,) = await run(engine, task)
            versions = sequence.token_versions
            assert len(versions) == TOKENS, "a completion was cut"
            assert np.all(np.diff(versions) >= 0), "versions fell"
            assert before <= versions[0], f"version {versions[0]}, but {before} was there before it began"
            assert versions[-1] <= engine.version.updates, f"version {versions[-1]} before its weights"
            crossed[0] += 1
            crossed[1] += int(versions[0] != versions[-1])

    await asyncio.gather(*(one() for _ in range(RUNNING)))
    return crossed[0], crossed[1]


async def measure(kind: str, mode: InflightMode, folders: list[str], num_swaps: int) -> str:
    engine, learner = start(kind, folders[0], slots=RUNNING, inflight=mode), Learner()
    await learner.meet(engine)
    done = asyncio.Event()
    busy = asyncio.create_task(keep_busy(engine, done))
    times = []
    for number in range(1, num_swaps + 1):
        await asyncio.sleep(0.05)
        before = engine.stats().swap_s
        await learner.publish(folders[number % 2], number, engine)
        times.append(engine.stats().swap_s - before)
        if busy.done():
            break
    done.set()
    ended, crossed = await busy
    await engine.close()
    learner.close()
    return f"| {kind} | {mode} | {statistics.median(times) * 1e3:.0f} ms | {max(times) * 1e3:.0f} ms | {ended} | {crossed} |"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--kinds", nargs="+", default=["embedded", "vllm", "sglang"])
    arguments = parser.parse_args()
    folders = [write_model(Path(tempfile.mkdtemp()), seed=seed, tied=True) for seed in (0, 1)]
    print("| engine | inflight.mode | pause + update + resume, median | largest | completions | crossed a swap |")
    print("|---|---|---|---|---|---|")
    for kind in arguments.kinds:
        for mode in MODES:
            print(await measure(kind, mode, folders, arguments.swaps), flush=True)  # type: ignore[arg-type]


if __name__ == "__main__":
    asyncio.run(main())
