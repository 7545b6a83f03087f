"""The promises of actors/engine.py, checked for every engine with real weights, real transfers and real processes."""

import asyncio
import dataclasses
from typing import Any

import numpy as np
import pytest

from corewarding.actors.engine import EngineError, SampledSequence
from corewarding.actors.engines import ENGINES
from corewarding.dataflow.carriers import RolloutTask
from corewarding.dataflow.ids import Version
from corewarding.weights.group import TransportError, local_address
from tests.engines.world import MAX_LEN, Learner, start, through_a_swap, until_full
from tests.tiny_models import forward, logprobs_of, run, task_of


async def test_greedy_is_the_argmax_of_a_transformers_forward(kind: str, tied: list[str]) -> None:
    engine = start(kind, tied[0])
    tasks = [task_of(number, temperature=0.0, group_size=1, max_new_tokens=40) for number in range(8)]
    for task, (sequence,) in zip(tasks, await asyncio.gather(*(run(engine, t) for t in tasks)), strict=True):
        assert forward(tied[0], task, sequence).argmax(-1).tolist() == sequence.token_ids.tolist()
    await engine.close()


async def test_logprobs_seeds_lengths_and_many_requests(kind: str, tied: list[str]) -> None:
    """One engine for what needs no swap: starting a server takes most of a minute."""
    engine = start(kind, tied[0], slots=32)
    for temperature in (1.0, 0.6):
        tasks = [
            task_of(number, temperature=temperature, max_new_tokens=24) for number in range(16)
        ]  # 64 completions, 32 slots
        groups = await asyncio.gather(*(run(engine, task) for task in tasks))
        errors = []
        for task, sequences in zip(tasks, groups, strict=True):
            assert [s.sample_index for s in sequences] == [0, 1, 2, 3]
            assert len({tuple(s.token_ids) for s in sequences}) == 4
            for sequence in sequences:
                assert len(sequence.token_ids) == 24
                assert sequence.finish_reason == "length"
                assert set(sequence.token_versions.tolist()) == {0}
                errors.append(np.abs(sequence.behavior_logprobs - logprobs_of(tied[0], task, sequence)))
        assert np.quantile(np.concatenate(errors), 0.99) < 5e-6 / temperature
        assert np.concatenate(errors).max() < 5e-5 / temperature

    if ENGINES[kind].seeded:
        await _repeats(engine, tasks[:4], groups[:4])

    crowd = [
        task_of(number, prompt_length=50, max_new_tokens=8) for number in range(16)
    ]  # far more than one step prefills
    assert [len(group) for group in await asyncio.gather(*(run(engine, task) for task in crowd))] == [4] * 16

    at_the_limit = task_of(1, prompt_length=MAX_LEN - 10, max_new_tokens=10)
    assert [len(s.token_ids) for s in await run(engine, at_the_limit)] == [10] * 4
    with pytest.raises(EngineError, match=r"max_model_len 160"):
        await run(engine, task_of(1, prompt_length=MAX_LEN - 10, max_new_tokens=11))
    assert engine.stats().running == engine.stats().queued == 0
    await engine.close()


async def test_engines_that_draw_from_streams_of_their_own_draw_differently(kind: str, tied: list[str]) -> None:
    """Otherwise a policy and a teacher with the same weights would give the same answers."""
    if not ENGINES[kind].own_stream:
        pytest.skip(f"{kind} gives every completion its own stream")
    drawn = []
    for seed in (0, 1):
        engine = start(kind, tied[0], slots=4, seed=seed, request_seeds=False)
        drawn.append([s.token_ids.tolist() for s in await run(engine, task_of(1, max_new_tokens=12))])
        await engine.close()
    assert len({tuple(tokens) for group in drawn for tokens in group}) == 8


async def test_stop_tokens_end_a_completion_and_are_kept(kind: str, tied: list[str]) -> None:
    eos = tuple(range(16))
    engine = start(kind, tied[0], slots=4, eos=eos)
    sequences = await run(engine, task_of(1, group_size=8, max_new_tokens=60))
    assert any(s.finish_reason == "stop" for s in sequences)
    for s in sequences:
        assert (s.finish_reason == "stop") == (int(s.token_ids[-1]) in eos)
        assert not set(s.token_ids[:-1].tolist()) & set(eos)
        assert len(s.behavior_logprobs) == len(s.token_ids) == len(s.token_versions)
    await engine.close()


@pytest.mark.parametrize("models", ["tied", "untied"])
async def test_a_swap_splits_versions_exactly_and_serves_no_old_cache(
    kind: str, models: str, learner: Learner, request: pytest.FixtureRequest
) -> None:
    old, new = request.getfixturevalue(models)
    engine = start(kind, old)
    await learner.meet(engine)
    long = task_of(2, prompt_length=100, temperature=0.0, group_size=1)  # longer than any engine's cache block
    (before,) = await run(engine, long)

    crossed = 0
    for task, sequence in await through_a_swap(engine, learner, new):
        versions = sequence.token_versions.tolist()
        assert versions == sorted(versions)
        assert set(versions) <= {0, 5}
        switch = versions.count(0)
        crossed += 0 < switch < len(versions)
        for folder, part in ((old, slice(0, switch)), (new, slice(switch, None))):
            expected = logprobs_of(folder, task, sequence)
            np.testing.assert_allclose(sequence.behavior_logprobs[part], expected[part], atol=1e-4)
    assert crossed

    assert engine.version == Version(incarnation=0, updates=5)
    (after,) = await run(engine, dataclasses.replace(long, attempt=1))
    assert forward(new, long, after).argmax(-1).tolist() == after.token_ids.tolist()
    assert before.token_ids.tolist() != after.token_ids.tolist()
    np.testing.assert_allclose(after.behavior_logprobs, logprobs_of(new, long, after), atol=5e-5)

    await learner.publish(old, 6, engine)  # and back
    (again,) = await run(engine, dataclasses.replace(long, attempt=2))
    assert again.token_ids.tolist() == before.token_ids.tolist()
    assert set(again.token_versions.tolist()) == {6}
    await engine.close()


async def test_keep_kv_goes_on_and_serves_new_requests_from_the_new_weights(
    kind: str, tied: list[str], learner: Learner
) -> None:
    old, new = tied
    engine = start(kind, old, inflight="keep_kv")
    await learner.meet(engine)
    long = task_of(2, prompt_length=100, temperature=0.0, group_size=1)
    await run(engine, long)
    crossed = 0
    for task, sequence in await through_a_swap(engine, learner, new):
        switch = sequence.token_versions.tolist().count(0)
        expected = logprobs_of(old, task, sequence)[:switch]
        np.testing.assert_allclose(sequence.behavior_logprobs[:switch], expected, atol=1e-4)
        if 0 < switch < len(sequence.token_ids):
            crossed += 1
            rebuilt = logprobs_of(new, task, sequence)[switch:]
            assert np.abs(sequence.behavior_logprobs[switch:] - rebuilt).max() > 1e-3
    assert crossed
    (after,) = await run(engine, dataclasses.replace(long, attempt=1))
    assert forward(new, long, after).argmax(-1).tolist() == after.token_ids.tolist()
    await engine.close()


async def test_drain_lets_no_completion_cross(kind: str, tied: list[str], learner: Learner) -> None:
    old, new = tied
    engine = start(kind, old, slots=4, inflight="drain")
    await learner.meet(engine)
    seen = set()
    for task, sequence in await through_a_swap(engine, learner, new):
        (version,) = set(sequence.token_versions.tolist())
        seen.add(version)
        expected = logprobs_of(old if version == 0 else new, task, sequence)
        np.testing.assert_allclose(sequence.behavior_logprobs, expected, atol=1e-4)
    assert seen == {0, 5}
    await engine.close()


async def test_abort_pause_and_resume_lose_nothing(kind: str, tied: list[str]) -> None:
    engine = start(kind, tied[0], slots=8)
    kept, doomed = task_of(2, max_new_tokens=100), task_of(1, group_size=64, max_new_tokens=140)
    running = [asyncio.create_task(run(engine, task)) for task in (kept, doomed)]
    await until_full(engine, 8)
    await engine.abort(doomed)
    with pytest.raises(EngineError, match="aborted"):
        await running[1]
    await engine.pause()
    late = asyncio.create_task(run(engine, task_of(3)))
    await asyncio.sleep(0.3)
    assert not late.done()
    await engine.resume()
    for task, sequences in ((kept, await running[0]), (task_of(3), await late)):
        assert len(sequences) == 4
        for sequence in sequences:
            assert len(sequence.token_ids) == task.max_new_tokens
            np.testing.assert_allclose(sequence.behavior_logprobs, logprobs_of(tied[0], task, sequence), atol=5e-5)
    again = await run(engine, dataclasses.replace(doomed, attempt=1))  # as a new attempt it is a task like any other
    assert len(again) == 64
    await engine.abort(task_of(9))  # unknown
    await engine.close()


async def test_a_wrong_manifest_is_refused_and_the_old_weights_stay(
    kind: str, tied: list[str], untied: list[str], learner: Learner
) -> None:
    engine = start(kind, tied[0])
    await learner.meet(engine)
    manifest = await learner.manifest_of(untied[0], 5)
    with pytest.raises(TransportError, match=r"does not fit this model.*lm_head"):
        await engine.begin(manifest)
    with pytest.raises(TransportError, match="no update is open"):
        await engine.commit(Version(incarnation=0, updates=5))
    task = task_of(4, temperature=0.0, group_size=1)
    (sequence,) = await run(engine, task)
    assert forward(tied[0], task, sequence).argmax(-1).tolist() == sequence.token_ids.tolist()
    assert engine.version.updates == 0
    await learner.publish(tied[1], 1, engine)  # the refusal cost nothing
    (sequence,) = await run(engine, dataclasses.replace(task, attempt=1))
    assert forward(tied[1], task, sequence).argmax(-1).tolist() == sequence.token_ids.tolist()
    await engine.close()


async def test_a_server_that_runs_already_is_used_and_left_running(
    kind: str, tied: list[str], learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not ENGINES[kind].takes_url:
        pytest.skip("this engine has no server")
    address = local_address("192.0.2.1", 9)  # not loopback, if this machine has a network: as a server on another node
    monkeypatch.setattr("corewarding.actors.sglang.server.LOOPBACK", address)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "undone after the test")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    owner = start(kind, tied[0])
    left = asyncio.create_task(run(owner, task_of(1, max_new_tokens=100)))  # as by an actor that died amid an update
    await owner.server.post("/pause_generation", mode="in_place")
    await owner.server.post("/begin_weight_update")
    engine = await asyncio.to_thread(start, kind, tied[0], url=owner.server.url, api_key=owner.server.api_key)
    await asyncio.gather(left, return_exceptions=True)
    task = task_of(5, temperature=0.0, group_size=1)
    (before,) = await run(engine, task)
    assert set(before.token_versions.tolist()) == {0}
    await learner.meet(engine)
    await learner.publish(tied[1], 3, engine)
    (after,) = await run(engine, task)
    assert set(after.token_versions.tolist()) == {3}
    assert forward(tied[1], task, after).argmax(-1).tolist() == after.token_ids.tolist()
    await engine.close()
    assert owner.server.process.poll() is None
    await owner.close()


async def test_a_dead_engine_gives_one_clear_error(kind: str, tied: list[str]) -> None:
    engine = start(kind, tied[0], slots=4)
    running = asyncio.create_task(run(engine, task_of(1, group_size=64, max_new_tokens=150)))
    await until_full(engine, 4)
    kill(engine)
    with pytest.raises(EngineError, match=r"engine|server"):
        await asyncio.wait_for(running, 30)
    with pytest.raises(EngineError):
        await asyncio.wait_for(run(engine, task_of(2)), 30)
    await engine.close()


async def _repeats(engine: Any, tasks: list[RolloutTask], groups: list[list[SampledSequence]]) -> None:
    """The same draws for a later attempt, in another batch. Late tokens may part where two engines' last bits do."""
    again = await asyncio.gather(*(run(engine, dataclasses.replace(task, attempt=1)) for task in tasks))
    first = [[s.token_ids[:8].tolist() for s in group] for group in groups]
    assert [[s.token_ids[:8].tolist() for s in group] for group in again] == first


def kill(engine: Any) -> None:
    """The next step fails; a server is killed."""
    if hasattr(engine, "server"):
        engine.server.process.kill()
        return

    def broken() -> None:
        raise RuntimeError("out of memory")

    engine.step = broken
