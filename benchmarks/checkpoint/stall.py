"""What a checkpoint costs a run: measured on a CPU with about 1 GB of learner state.

    python -m benchmarks.checkpoint.stall [--layers 9] [--times 3]

One learner rank, a Ray actor, trains a random model on random samples. First, --times times, a save that blocks: copy, write, export,
hashes and commit, one after the other, with no update meanwhile. Then as in a run: an update, the copy, and further updates until the
checkpoint is committed. Prints both times, the longest time for which the driver's event loop did not answer, and the time of an
update with and without a checkpoint being written. Exit code 1 if the copy takes more than 25% of a blocking save, or if the event
loop was blocked for more than 0.2 s.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import ray
from transformers import Qwen3Config, Qwen3ForCausalLM

from corewarding.dataflow.carriers import TrainBatch
from corewarding.dataflow.codec import encode
from corewarding.launch.run.cadence import Checkpoints
from corewarding.launch.run.feed import QuestionFeed
from corewarding.launch.run.preflight.needs import process_environment
from corewarding.learner.checkpoint.store import CheckpointStore
from corewarding.learner.group import LearnerGroup
from corewarding.learner.settings import LearnerPlan, LearnerSettings, TrainSettings
from tests.unit.learner.conftest import VOCAB, make_samples, write_tokenizer

PAUSE_S = 0.005
STALL_BAR, BLOCKED_BAR_S = 0.25, 0.2


def write_base(folder: Path, layers: int) -> None:
    config = Qwen3Config(
        vocab_size=VOCAB, hidden_size=768, intermediate_size=2304, num_hidden_layers=layers, num_attention_heads=12,
        num_key_value_heads=4, head_dim=64, max_position_embeddings=512, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder)


class Feed:
    """Stands for the question feed: its part of a checkpoint is some hundred bytes."""

    async def state(self) -> dict[str, Any]:
        return {"cursor": {}, "buffer": {}}


class Heart:
    """Beats in the event loop, and knows its longest pause."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def beat(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(PAUSE_S)
            self.longest = max(self.longest, time.perf_counter() - began - PAUSE_S)


class Trainer:
    """Makes updates one after another."""

    def __init__(self, learner: LearnerGroup) -> None:
        self._learner = learner
        self.updates = 0

    async def update(self) -> float:
        """Returns its seconds."""
        began = time.perf_counter()
        self.updates += 1
        samples = make_samples(8, seed=self.updates, version=self.updates - 1)
        batch = TrainBatch(incarnation=0, update=self.updates, samples=samples)
        await self._learner.update(encode(batch))
        return time.perf_counter() - began


async def blocking(learner: LearnerGroup, store: CheckpointStore, update: int) -> float:
    """Seconds of a save that an update waits for."""
    began = time.perf_counter()
    folder = store.begin(update)
    await learner.stage()
    await learner.write(folder / "learner")
    await learner.export(folder / "learner", folder / "model", "policy")
    store.commit(folder, {"updates": update})
    return time.perf_counter() - began


async def measure(folder: Path, layers: int, times: int) -> bool:
    """Prints the numbers; returns whether the bars hold."""
    write_base(folder / "base", layers)
    plan = LearnerPlan(
        model_path=str(folder / "base"),
        kl_coef=0.0,
        kl_reference="none",
        keep_teacher=True,
        train=TrainSettings(updates=10_000, warmup_frac=0.0),
        learner=LearnerSettings(cpus_per_rank=0.5),
    )
    learner = LearnerGroup(
        plan, incarnation=0, bucket_bytes=2**20, wire_dtype="float32", runtime_env=process_environment(1)
    )
    await learner.start()
    trainer = Trainer(learner)
    store = CheckpointStore(folder / "checkpoints", keep=1)
    await trainer.update()
    slow = [await blocking(learner, store, await next_update(trainer)) for _ in range(times)]
    size = sum(path.stat().st_size for path in (folder / "checkpoints").rglob("learner/*"))
    alone = [await trainer.update() for _ in range(5)]

    checkpoints = Checkpoints(
        store, learner, cast("QuestionFeed", Feed()), lambda work, name: asyncio.create_task(work, name=name),
        every=1, total_updates=10_000,
    )  # fmt: skip
    heart = Heart()
    beating = asyncio.create_task(heart.beat())
    stalls, beside, whole = [], [], []
    for _ in range(times):
        await trainer.update()
        version = await learner.version()
        began = time.perf_counter()
        await checkpoints.save(version, before=None)
        stalls.append(time.perf_counter() - began)
        written = asyncio.create_task(checkpoints.written())
        while not written.done():
            beside.append(await trainer.update())
        await written
        whole.append(time.perf_counter() - began)
    beating.cancel()
    await learner.close()

    fraction = statistics.median(stalls) / statistics.median(slow)
    print(f"learner state                  {size / 1e9:.2f} GB")
    print(f"a save that blocks             {statistics.median(slow):.2f} s  {shown(slow)}")
    print(f"an update waits for the copy   {statistics.median(stalls):.3f} s  {shown(stalls)}: {fraction:.1%} of it")
    print(f"committed after                {statistics.median(whole):.2f} s")
    print(
        f"an update                      {statistics.median(alone):.2f} s, and {statistics.median(beside):.2f} s beside the writing"
    )
    print(f"event loop blocked at most     {heart.longest:.3f} s")
    return fraction <= STALL_BAR and heart.longest <= BLOCKED_BAR_S


async def next_update(trainer: Trainer) -> int:
    await trainer.update()
    return trainer.updates


def shown(seconds: list[float]) -> str:
    return "(" + ", ".join(f"{one:.2f}" for one in seconds) + ")"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=9)
    parser.add_argument("--times", type=int, default=3)
    arguments = parser.parse_args()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=True, configure_logging=False)
    with tempfile.TemporaryDirectory(prefix="checkpoint-stall-") as folder:
        holds = asyncio.run(measure(Path(folder), arguments.layers, arguments.times))
    ray.shutdown()
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
