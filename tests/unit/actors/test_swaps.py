"""New weights while an embedded engine samples: which weights write which token, under each `inflight.mode`."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from corewarding.actors.embedded import model
from corewarding.actors.embedded.engine import EmbeddedEngine
from corewarding.actors.engine import EngineError, SampledSequence
from corewarding.actors.settings import InflightMode
from corewarding.dataflow.carriers import RolloutTask
from corewarding.dataflow.ids import Version
from tests.tiny_models import chosen_logprobs, logprobs_of, model_of, run, task_of
from tests.toy_models import write_toy
from tests.unit.actors.test_embedded_engine import start


@pytest.mark.parametrize("inflight", ["recompute", "keep_kv"])
async def test_what_starts_after_a_swap_reads_its_prompt_with_the_new_weights(
    folders: list[str], inflight: InflightMode
) -> None:
    engine = start(folders[0], slots=6, inflight=inflight)
    task = task_of(9, group_size=24, max_new_tokens=100)
    running = asyncio.create_task(run(engine, task))
    await swap_when(engine, folders[1], 100)
    sequences = await running
    later = [sequence for sequence in sequences if set(sequence.token_versions.tolist()) == {5}]
    assert len(later) == 18
    for sequence in later:
        np.testing.assert_allclose(sequence.behavior_logprobs, logprobs_of(folders[1], task, sequence), atol=2e-4)
    await engine.close()


async def swap_when(engine: EmbeddedEngine, folder: str, num_tokens: int) -> None:
    """Commits `folder`'s weights as version 5 once so many tokens were sampled."""
    while engine.stats().generated_tokens < num_tokens:
        await asyncio.sleep(0.001)
    weights = {name: parameter.detach() for name, parameter in model_of(folder).named_parameters()}
    await engine.load_weights(weights, Version(incarnation=0, updates=5))


def over_the_old_cache(old: str, new: str, task: RolloutTask, sequence: SampledSequence) -> np.ndarray:
    """[L] logprobs when `new` continues over the keys and values that `old` computed for the tokens it sampled."""
    first, second = model_of(old), model_of(new)
    switch = int(np.argmax(sequence.token_versions == 5))
    ids = torch.from_numpy(np.concatenate([task.prompt_token_ids, sequence.token_ids[:-1]])).long()[None]
    cut = len(task.prompt_token_ids) + switch - 1  # the newest token of the old weights is computed by the new ones
    with torch.no_grad():
        before = first(ids[:, :cut], use_cache=True)
        after = second(ids[:, cut:], past_key_values=before.past_key_values, use_cache=True)
    logits = torch.cat([before.logits, after.logits], 1)[0, len(task.prompt_token_ids) - 1 :]
    return chosen_logprobs(logits, sequence, 1.0)


async def test_a_swap_splits_the_versions_exactly_and_rebuilds_the_cache(folders: list[str]) -> None:
    engine = start(folders[0])
    task = task_of(3, group_size=6, max_new_tokens=250)
    running = asyncio.create_task(run(engine, task))
    await swap_when(engine, folders[1], 200)
    for sequence in await running:
        assert set(sequence.token_versions.tolist()) == {0, 5}
        switch = int(np.argmax(sequence.token_versions == 5))
        for folder, part in ((folders[0], slice(0, switch)), (folders[1], slice(switch, None))):
            expected = logprobs_of(folder, task, sequence)
            np.testing.assert_allclose(sequence.behavior_logprobs[part], expected[part], atol=2e-4)
    await engine.close()


@pytest.mark.parametrize("mask", [2**24, 300], ids=["one mask", "several masks"])
async def test_a_rebuilt_cache_reads_each_prompt_once_and_then_what_was_sampled_after_it(
    folders: list[str], mask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups with prompts of different lengths, whose members have come to different places, on rows with holes between them."""
    monkeypatch.setattr(model, "MASK", mask)
    engine = start(folders[0], slots=24, eos=(3,), max_model_len=120)
    tasks = [
        task_of(number, group_size=size, max_new_tokens=90) for number, size in ((1, 30), (7, 50), (4, 1), (2, 40))
    ]
    running = [asyncio.create_task(run(engine, task)) for task in tasks]
    await swap_when(engine, folders[1], 400)
    mixed = 0
    for task, waits in zip(tasks, running, strict=True):
        for sequence in await waits:
            both = [logprobs_of(folder, task, sequence) for folder in folders]
            expected = np.where(sequence.token_versions == 5, both[1], both[0])
            np.testing.assert_allclose(sequence.behavior_logprobs, expected, atol=2e-4)
            mixed += len(set(sequence.token_versions.tolist())) == 2
    assert mixed > 6
    await engine.close()


@pytest.mark.parametrize(
    "name", ["mistral", "phi3", "olmo2", "qwen3_moe", "mixtral", "smollm3", "glm4", "gemma", "nemotron", "helium"]
)
async def test_every_architecture_goes_on_over_a_rebuilt_cache(name: str, tmp_path: Path) -> None:
    toys = [write_toy(name, tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    engine = start(toys[0])
    task = task_of(3, group_size=64, max_new_tokens=40)
    running = asyncio.create_task(run(engine, task))
    while engine.stats().generated_tokens < 100:
        await asyncio.sleep(0.001)
    await engine.load_weights(load_file(Path(toys[1]) / "model.safetensors"), Version(incarnation=0, updates=5))
    mixed = [sequence for sequence in await running if len(set(sequence.token_versions.tolist())) == 2]
    assert mixed
    for sequence in mixed:
        expected = logprobs_of(toys[1], task, sequence)[sequence.token_versions == 5]
        np.testing.assert_allclose(sequence.behavior_logprobs[sequence.token_versions == 5], expected, atol=2e-4)
    await engine.close()


async def test_a_rebuild_costs_each_prompt_once(folders: list[str]) -> None:
    engine = start(folders[0], slots=8, eos=(2,))
    task = task_of(3, group_size=200, max_new_tokens=40)
    running = asyncio.create_task(run(engine, task))
    await swap_when(engine, folders[1], 150)
    old = [sequence.token_versions != 5 for sequence in await running]
    rebuilt = sum(int(part.sum()) - 1 for part in old if 0 < part.sum() < len(part))
    assert rebuilt > 0
    assert old[-1].sum() == 0  # started after the swap, and copied the prompt of those that ran
    assert engine.stats().prefill_tokens == 2 * len(task.prompt_token_ids) + rebuilt
    await engine.close()


async def test_keep_kv_goes_on_over_the_old_cache(folders: list[str]) -> None:
    engine = start(folders[0], inflight="keep_kv")
    task = task_of(3, group_size=6, max_new_tokens=250)
    running = asyncio.create_task(run(engine, task))
    await swap_when(engine, folders[1], 200)
    for sequence in await running:
        assert set(sequence.token_versions.tolist()) == {0, 5}
        expected = over_the_old_cache(*folders, task, sequence)
        np.testing.assert_allclose(sequence.behavior_logprobs, expected, atol=2e-4)
        rebuilt = logprobs_of(folders[1], task, sequence)
        assert np.abs(rebuilt - expected)[sequence.token_versions == 5].max() > 1e-2
    await engine.close()


async def test_drain_ends_what_runs_under_the_old_weights_and_starts_the_rest_under_the_new(folders: list[str]) -> None:
    engine = start(folders[0], slots=4, inflight="drain")
    first, second = task_of(1, max_new_tokens=200), task_of(2, max_new_tokens=100)
    both = [asyncio.create_task(run(engine, task)) for task in (first, second)]
    await swap_when(engine, folders[1], 100)
    for task, folder, version, running in ((first, folders[0], 0, both[0]), (second, folders[1], 5, both[1])):
        for sequence in await running:
            assert set(sequence.token_versions.tolist()) == {version}
            expected = logprobs_of(folder, task, sequence)
            np.testing.assert_allclose(sequence.behavior_logprobs, expected, atol=2e-4)
    await engine.close()


async def test_a_paused_engine_cannot_drain(folders: list[str]) -> None:
    engine = start(folders[0], inflight="drain")
    running = asyncio.create_task(run(engine, task_of(1, max_new_tokens=250)))
    while engine.stats().generated_tokens < 8:
        await asyncio.sleep(0.001)
    await engine.pause()
    with pytest.raises(EngineError, match="while the engine is paused"):
        await swap_when(engine, folders[1], 0)
    assert engine.version.updates == 0
    await engine.resume()
    assert len(await running) == 4
    await engine.close()
