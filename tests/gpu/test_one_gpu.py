"""Learner and engine as two processes on one GPU: weights cross by CUDA IPC or through the host, and the engine samples from them."""

from __future__ import annotations

import asyncio
import importlib.util
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corewarding.actors.engine import SampledSequence
from corewarding.dataflow.carriers import RolloutTask
from tests.engines.world import Learner, start
from tests.tiny_models import forward, logprobs_of, run, task_of, write_model

KINDS = ["embedded", "vllm"]
TASK = task_of(5, temperature=0.0, group_size=1, max_new_tokens=40)
SAMPLED = [task_of(number, max_new_tokens=24) for number in range(4)]


def serve_engine(kind: str, folder: str, device: str, pipe: Connection) -> None:
    """In its own process: the engine's methods by name, as they are asked for; `run` samples one task."""

    async def answer() -> None:
        keys = {"memory_fraction": 0.2} if kind == "vllm" and device == "cuda" else {}
        engine = start(kind, folder, device=device, **keys)
        while (order := await asyncio.to_thread(pipe.recv)) is not None:
            name, arguments = order
            try:
                called = run(engine, *arguments) if name == "run" else getattr(engine, name)(*arguments)
                pipe.send((await called, None))
            except Exception as error:
                pipe.send((None, error))
        await engine.close()

    asyncio.run(answer())


class EngineProcess:
    """Stands for the engine in that process."""

    def __init__(self, kind: str, folder: str, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve_engine, args=(kind, folder, device, theirs))
        self._process.start()
        theirs.close()

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: object) -> Any:
            return await asyncio.to_thread(self._call, name, arguments)

        return call

    def _call(self, name: str, arguments: tuple[object, ...]) -> Any:
        self._pipe.send((name, arguments))
        result, error = self._pipe.recv()
        if error is not None:
            raise error
        return result

    def end(self) -> None:
        self._pipe.send(None)
        self._process.join(60)
        self._process.kill()


def check(
    folder: str, updates: int, greedy: list[SampledSequence], sampled: list[tuple[RolloutTask, SampledSequence]]
) -> None:
    (sequence,) = greedy
    assert sequence.token_ids.tolist() == forward(folder, TASK, sequence).argmax(-1).tolist()
    errors = np.concatenate([np.abs(one.behavior_logprobs - logprobs_of(folder, task, one)) for task, one in sampled])
    assert errors.max() < 5e-5
    assert {version for _, one in sampled for version in one.token_versions.tolist()} == {updates}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_engine_samples_from_weights_that_crossed_on_the_gpu(
    kind: str, device: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if importlib.util.find_spec("vllm") is None and kind == "vllm":
        pytest.skip("vllm is not installed in this environment")
    folders = [write_model(tmp_path_factory.mktemp("model"), seed=seed, tied=True) for seed in (0, 1)]
    engine, learner = EngineProcess(kind, folders[0], device), Learner(device)
    try:
        for updates, backend in enumerate(["ipc", "gloo", "ipc"], start=1):
            folder = folders[updates % 2]
            await learner.meet(engine, backend=backend)  # type: ignore[arg-type]
            await learner.publish(folder, updates, engine)  # type: ignore[arg-type]
            sampled = [(task, one) for task in SAMPLED for one in await engine.run(task)]
            check(folder, updates, await engine.run(TASK), sampled)
    finally:
        learner.close()
        engine.end()


async def test_an_engine_elsewhere_is_told_that_memory_is_not_shared(device: str, tmp_path: Path) -> None:
    if device == "cpu":
        pytest.skip("memory of the host is shared with all processes on it")
    folder = write_model(tmp_path, seed=0, tied=True)
    engine, learner = EngineProcess("embedded", folder, "cpu"), Learner("cuda")
    try:
        with pytest.raises(Exception, match=r"publish\.backend: gloo"):
            await learner.meet(engine, backend="ipc")  # type: ignore[arg-type]
    finally:
        learner.close()
        engine.end()


def test_a_learners_share_of_the_gpu_is_a_bound(device: str) -> None:
    if device == "cpu":
        pytest.skip("shares are of a GPU")
    from corewarding.learner.device import choose_device

    chosen = choose_device("cuda", share=0.01)
    try:
        with pytest.raises(torch.cuda.OutOfMemoryError):
            torch.empty(
                int(0.02 * torch.cuda.get_device_properties(chosen).total_memory), dtype=torch.uint8, device=chosen
            )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, chosen)
