"""Engines of every kind on tiny models, and a learner that really sends a model's weights."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
from pathlib import Path
from typing import Any

from corewarding.actors.engine import EngineContext, RolloutEngine, SampledSequence
from corewarding.actors.engines import ENGINES, make_engine
from corewarding.actors.settings import EngineSettings, InflightMode
from corewarding.dataflow.carriers import RolloutTask
from corewarding.dataflow.weights import WeightManifest
from corewarding.weights.stream import Shard
from tests.tiny_models import model_of, run, task_of
from tests.weight_fakes import LocalLearner

MAX_LEN = 160
LANES = (80, 110, 140)  # tokens of the completions that follow each other in a lane
ROOT = Path(__file__).resolve().parents[2]
SGLANG_PYTHON = os.environ.get("CW_SGLANG_PYTHON", str(ROOT / ".venv-sglang" / "bin" / "python"))


def missing(kind: str) -> str | None:
    """Why engines of this kind cannot run here, or None."""
    row = ENGINES[kind]
    if row.python_of == "server" and not Path(SGLANG_PYTHON).exists():
        return f"no {SGLANG_PYTHON}: make engines"
    if row.python_of == "actor" and importlib.util.find_spec(str(row.package)) is None:
        return f"{kind} is not installed in this environment: make engines, then .venv-{kind}/bin/python -m pytest"
    return None


def start(
    kind: str,
    folder: str,
    *,
    slots: int = 64,
    eos: tuple[int, ...] = (),
    inflight: InflightMode = "recompute",
    device: str = "cpu",
    seed: int = 0,
    **keys: Any,
) -> RolloutEngine:
    keys.setdefault("request_seeds", True)  # also on a GPU, where that is not the default
    if ENGINES[kind].python_of == "server":
        keys.setdefault("python", SGLANG_PYTHON)
    return make_engine(
        EngineContext(
            settings=EngineSettings(kind=kind, slots=slots, prefill_tokens=64, **keys),
            model_path=folder,
            max_model_len=MAX_LEN,
            eos_token_ids=eos,
            device=device,
            inflight=inflight,
            seed=seed,
        )
    )


class Learner(LocalLearner):
    """Rank 0 of a learner in this process: sends any model folder's weights."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(bucket_bytes=1 << 16, device=device)
        self._folder: str | None = None

    def shards(self) -> list[Shard]:
        assert self._folder is not None
        return [
            Shard(name=name, shape=tuple(p.shape), start=0, local=p.detach().reshape(-1).to(self.device))
            for name, p in model_of(self._folder).named_parameters()
        ]

    async def manifest_of(self, folder: str, updates: int) -> WeightManifest:
        """Announces the folder's weights as version `updates`."""
        self._folder, self.updates = folder, updates
        return await self.announce("policy", self.group_epoch, True, "policy")

    async def publish(self, folder: str, updates: int, *engines: RolloutEngine) -> None:
        """Gives the folder's weights to all engines: begin, receive and commit."""
        self._folder, self.updates = folder, updates
        await self.transfer(*engines)


async def through_a_swap(engine: Any, learner: Learner, folder: str) -> list[tuple[RolloutTask, SampledSequence]]:
    """Publishes the folder's weights as version 5 amid completions; returns all completions, from before it to after it.

    Three lanes of requests of different lengths run without a gap, so at any moment some completion is under way, however slow or
    fast this machine is.
    """
    swapped = asyncio.Event()
    begun = [asyncio.Event() for _ in LANES]

    async def lane(index: int) -> list[tuple[RolloutTask, SampledSequence]]:
        done = []
        for number in itertools.count(10 + index, len(LANES)):
            last = swapped.is_set()  # one request more after the swap
            task = task_of(number, group_size=2, max_new_tokens=LANES[index])
            done += [(task, sequence) for sequence in await run(engine, task)]
            begun[index].set()
            if last:
                break
        return done

    async with asyncio.TaskGroup() as group:
        lanes = [group.create_task(lane(index)) for index in range(len(LANES))]
        for event in begun:
            await event.wait()
        await learner.publish(folder, 5, engine)
        swapped.set()
    return [pair for done in lanes for pair in done.result()]


async def until_full(engine: Any, slots: int) -> None:
    """Returns once all slots are taken."""
    async with asyncio.timeout(60):
        while engine.stats().running < slots:
            await asyncio.sleep(0.001)
