"""The embedded engine against plain transformers forwards: tokens, logprobs, versions, and what it refuses."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from corewarding.actors.embedded.engine import EmbeddedEngine
from corewarding.actors.engine import EngineContext, EngineError, EngineSettingsError
from corewarding.actors.settings import EngineSettings, InflightMode
from corewarding.dataflow.ids import Version
from corewarding.dataflow.weights import TensorSpec, WeightManifest
from corewarding.weights.group import TransportError
from tests.tiny_models import forward, logprobs_of, run, task_of
from tests.toy_models import write_toy


def start(
    folder: str,
    *,
    slots: int = 16,
    eos: tuple[int, ...] = (),
    max_model_len: int = 300,
    inflight: InflightMode = "recompute",
    deterministic: bool = False,
) -> EmbeddedEngine:
    return EmbeddedEngine(
        EngineContext(
            settings=EngineSettings(slots=slots, prefill_tokens=64, deterministic=deterministic),
            model_path=folder,
            max_model_len=max_model_len,
            eos_token_ids=eos,
            inflight=inflight,
        )
    )


async def test_greedy_is_the_argmax_of_a_full_forward(folders: list[str]) -> None:
    engine = start(folders[0])
    for number in range(4):
        task = task_of(number, temperature=0.0, group_size=1)
        (sequence,) = await run(engine, task)
        assert forward(folders[0], task, sequence).argmax(-1).tolist() == sequence.token_ids.tolist()
    await engine.close()


@pytest.mark.parametrize("temperature", [1.0, 0.6])
async def test_sampled_logprobs_are_those_of_a_full_forward(folders: list[str], temperature: float) -> None:
    engine = start(folders[0])
    tasks = [task_of(number, temperature=temperature) for number in range(12)]  # three times the slots
    for task, sequences in zip(tasks, await asyncio.gather(*(run(engine, t) for t in tasks)), strict=True):
        assert [s.sample_index for s in sequences] == [0, 1, 2, 3]
        for sequence in sequences:
            expected = logprobs_of(folders[0], task, sequence)
            np.testing.assert_allclose(sequence.behavior_logprobs, expected, atol=5e-5 / temperature)
    await engine.close()


@pytest.mark.parametrize(
    "name", ["mistral", "phi3", "olmo2", "qwen3_moe", "mixtral", "smollm3", "glm4", "gemma", "nemotron", "helium"]
)
async def test_other_architectures_are_sampled_and_swapped_by_the_names_of_their_checkpoints(
    name: str, tmp_path: Path
) -> None:
    folders = [write_toy(name, tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    engine = start(folders[0])
    for number, folder in enumerate(folders):
        if number:
            stored = load_file(Path(folder) / "model.safetensors")
            await engine.load_weights(stored, Version(incarnation=0, updates=number))
        task = task_of(number, max_new_tokens=8)
        for sequence in await run(engine, task):
            np.testing.assert_allclose(sequence.behavior_logprobs, logprobs_of(folder, task, sequence), atol=5e-5)
    await engine.close()


async def test_tokens_depend_on_the_completion_not_on_slots_or_order(folders: list[str]) -> None:
    tokens = []
    for slots, order in ((16, range(6)), (3, reversed(range(6)))):
        engine = start(folders[0], slots=slots)
        results = {n: asyncio.create_task(run(engine, task_of(n, group_size=5))) for n in order}
        tokens.append({n: [s.token_ids.tolist() for s in await result] for n, result in results.items()})
        await engine.close()
    assert tokens[0] == tokens[1]


async def test_a_prompt_is_prefilled_once_for_all_sequences_that_read_it(folders: list[str]) -> None:
    """4 slots, a group of 20: later members find the prompt in the cache of one that runs. A second task asks the same prompt."""
    engine = start(folders[0], slots=4, eos=tuple(range(8)))
    first, second = task_of(9, group_size=20, max_new_tokens=60), task_of(9, group_size=3, temperature=0.6, attempt=1)
    both = await asyncio.gather(run(engine, first), run(engine, second))
    for task, sequences in zip((first, second), both, strict=True):
        for sequence in sequences:
            np.testing.assert_allclose(sequence.behavior_logprobs, logprobs_of(folders[0], task, sequence), atol=1e-4)
    assert len({len(sequence.token_ids) for sequence in both[0]}) > 3  # so that they start one after the other
    assert engine.stats().prefill_tokens == len(first.prompt_token_ids)
    await engine.close()


async def test_end_of_sequence_is_kept_and_frees_the_slot(folders: list[str]) -> None:
    eos = tuple(range(20))
    engine = start(folders[0], slots=2, eos=eos)
    sequences = await run(engine, task_of(1, group_size=8, max_new_tokens=40))
    assert any(s.finish_reason == "stop" for s in sequences)
    for s in sequences:
        assert (s.finish_reason == "stop") == (int(s.token_ids[-1]) in eos)
        assert not set(s.token_ids[:-1].tolist()) & set(eos)
    await engine.close()


async def test_abort_ends_one_task_and_leaves_the_other(folders: list[str]) -> None:
    engine = start(folders[0])
    long, short = task_of(1, max_new_tokens=280), task_of(2, max_new_tokens=100)
    both = [asyncio.create_task(run(engine, t)) for t in (long, short)]
    while engine.stats().generated_tokens < 20:
        await asyncio.sleep(0.001)
    await engine.abort(long)
    with pytest.raises(EngineError, match="aborted"):
        await both[0]
    assert len(await both[1]) == 4
    await engine.close()


async def test_what_does_not_fit_is_refused(folders: list[str], tmp_path: Path) -> None:
    engine = start(folders[0], max_model_len=20)
    with pytest.raises(EngineError, match=r"rollout\.max_new_tokens 40 exceed engine\.max_model_len 20"):
        await run(engine, task_of(1, max_new_tokens=40))
    spec = TensorSpec(name="model.norm.weight", shape=(3,), dtype="float32", num_bytes=12, checksum=None)
    manifest = WeightManifest(
        channel="policy", version=Version(incarnation=0, updates=1), group_epoch=1, bucket_bytes=64, tensors=(spec,)
    )
    with pytest.raises(TransportError, match="does not fit this model"):
        await engine.begin(manifest)
    assert len(await run(engine, task_of(1, max_new_tokens=4))) == 4
    assert engine.version == Version(incarnation=0, updates=0)
    await engine.close()
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=9)).save_pretrained(tmp_path)
    with pytest.raises(EngineSettingsError, match="GPT2LMHeadModel has an architecture outside of the table"):
        start(str(tmp_path))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_failure_in_the_thread_reaches_the_caller(folders: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = start(folders[0])
    monkeypatch.setattr(engine, "step", lambda: 1 / 0)
    with pytest.raises(EngineError, match="division by zero"):
        await asyncio.wait_for(run(engine, task_of(1)), 10)
    with pytest.raises(EngineError, match="has stopped"):
        await run(engine, task_of(2))
    await engine.close()


async def test_pause_holds_and_resume_goes_on(folders: list[str]) -> None:
    engine = start(folders[0])
    await engine.pause()
    running = asyncio.create_task(run(engine, task_of(1)))
    await asyncio.sleep(0.2)
    assert engine.stats().generated_tokens == 0
    await engine.resume()
    assert len(await running) == 4
    await engine.close()


async def test_deterministic_samples_do_not_depend_on_what_else_is_sampled(folders: list[str]) -> None:
    """Compares, to the last bit, a task alone with the same task among earlier, simultaneous and later ones, where its members do not
    all start together."""
    mine = task_of(5, group_size=10, max_new_tokens=60)
    alone = start(folders[0], slots=32, deterministic=True)
    expected = await run(alone, mine)
    await alone.close()
    for order in ([1, 2, 5, 3, 4], [4, 3, 2, 1, 6, 7, 8, 5]):
        engine = start(folders[0], slots=32, deterministic=True)
        running = []
        for number in order:
            task = mine if number == 5 else task_of(number, max_new_tokens=8 * number + 20)
            running.append(asyncio.create_task(run(engine, task)))
            await asyncio.sleep(0.01 * (number % 3))
        got = (await asyncio.gather(*running))[order.index(5)]
        await engine.close()
        for one, other in zip(expected, got, strict=True):
            np.testing.assert_array_equal(one.token_ids, other.token_ids)
            np.testing.assert_array_equal(one.behavior_logprobs, other.behavior_logprobs)


def test_deterministic_is_refused_where_rows_differ(folders: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from corewarding.actors.embedded.model import Decoder

    exact = Decoder.logits
    monkeypatch.setattr(
        Decoder, "logits", lambda self, hidden: exact(self, hidden) + torch.arange(len(hidden))[:, None]
    )
    with pytest.raises(EngineSettingsError, match=r"engine.slots 5 equal rows"):
        start(folders[0], slots=5, deterministic=True)
