"""The scripted engine keeps the engine protocol's promises, with real weights arriving while it samples."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corewarding.actors.engine import EngineContext, EngineError
from corewarding.actors.engines import make_engine
from corewarding.actors.scripted.engine import LOGPROB, ScriptedEngine
from corewarding.actors.scripted.recordings import RecordingsError, read_recordings
from corewarding.actors.settings import EngineSettings, InflightMode
from corewarding.dataflow.ids import Version
from corewarding.weights.group import TransportError
from tests.tiny_models import run
from tests.weight_fakes import COMPLETIONS, LocalLearner, byte_ids, make_task, write_model_folder, write_script

EngineOf = Callable[..., ScriptedEngine]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def engine_of(folder: str, tmp_path: Path) -> EngineOf:
    def make(*, inflight: InflightMode = "recompute", **keys: Any) -> ScriptedEngine:
        settings = EngineSettings(kind="scripted", script=write_script(tmp_path / "script.jsonl"), **keys)
        engine = make_engine(
            EngineContext(
                settings=settings,
                model_path=folder,
                max_model_len=128,
                eos_token_ids=(0,),
                version=Version(incarnation=0, updates=3),
                inflight=inflight,
            )
        )
        assert isinstance(engine, ScriptedEngine)
        return engine

    return make


async def test_it_replays_the_script_in_order_and_cuts_at_the_limit(engine_of: EngineOf) -> None:
    engine = engine_of()
    sequences = await run(engine, make_task(group_size=4, max_new_tokens=15))
    texts = [*COMPLETIONS, COMPLETIONS[0]]
    assert [s.finish_reason for s in sequences] == ["length", "length", "stop", "length"]
    for sequence, text in zip(sequences, texts, strict=True):
        assert sequence.token_ids.tolist() == [*byte_ids(text).tolist(), 0][:15]
        assert set(sequence.behavior_logprobs.tolist()) == {LOGPROB}
        assert set(sequence.token_versions.tolist()) == {3}
    assert engine.stats().generated_tokens == 15 + 15 + 2 + 15


async def test_versions_rise_inside_a_sequence_at_the_swap(engine_of: EngineOf) -> None:
    engine, learner = engine_of(script_seconds_per_token=0.03), LocalLearner()
    learner.updates = 4
    await learner.meet(engine)
    sampling = asyncio.create_task(run(engine, make_task(group_size=1)))
    while engine.stats().generated_tokens < 2:
        await asyncio.sleep(0.001)
    assert engine.stats().running == 1
    await learner.transfer(engine)
    assert engine.version == Version(incarnation=0, updates=4)
    (sequence,) = await sampling
    versions = sequence.token_versions.tolist()
    assert versions == sorted(versions)
    assert set(versions) == {3, 4}
    learner.updates = 5
    await learner.meet(engine)
    await learner.transfer(engine)
    assert engine.version.updates == 5
    await learner.close_channel("policy")
    await engine.close()


async def test_drain_lets_what_runs_end_and_the_rest_start_under_the_new_version(engine_of: EngineOf) -> None:
    engine, learner = engine_of(script_seconds_per_token=0.03, slots=1, inflight="drain"), LocalLearner()
    learner.updates = 4
    await learner.meet(engine)
    sampling = asyncio.create_task(run(engine, make_task(group_size=2)))
    while not engine.stats().running:
        await asyncio.sleep(0.001)
    await learner.transfer(engine)
    assert [set(sequence.token_versions.tolist()) for sequence in await sampling] == [{3}, {4}]
    await learner.close_channel("policy")
    await engine.close()


async def test_updates_are_refused_out_of_order(engine_of: EngineOf) -> None:
    engine, learner = engine_of(), LocalLearner()
    await learner.meet(engine)
    with pytest.raises(TransportError, match="no update is open"):
        await engine.receive()
    manifest = await learner.announce("policy", 1, True, "policy")
    await engine.begin(manifest)
    with pytest.raises(TransportError, match="is open"):
        await engine.begin(manifest)
    with pytest.raises(TransportError, match="received: False"):
        await engine.commit(manifest.version)
    await engine.abort_update()
    with pytest.raises(TransportError, match="not a member"):
        await engine.begin(manifest)
    await learner.close_channel("policy")


async def test_an_aborted_task_ends_by_an_error_and_pause_holds_tokens_back(engine_of: EngineOf) -> None:
    engine, task = engine_of(script_seconds_per_token=0.01, slots=1), make_task(group_size=2)
    await engine.pause()
    sampling = asyncio.create_task(run(engine, task))
    await asyncio.sleep(0.05)
    assert (engine.stats().generated_tokens, engine.stats().running, engine.stats().queued) == (0, 1, 1)
    await engine.resume()
    while not engine.stats().generated_tokens:
        await asyncio.sleep(0.001)
    await engine.abort(task)
    with pytest.raises(EngineError, match="was aborted"):
        await sampling
    await asyncio.sleep(0)
    assert (engine.stats().running, engine.stats().queued) == (0, 0)


async def test_what_it_cannot_answer_is_refused(engine_of: EngineOf) -> None:
    engine = engine_of()
    with pytest.raises(EngineError, match=r"exceed engine\.max_model_len 128"):
        await run(engine, make_task(max_new_tokens=120))
    with pytest.raises(EngineError, match="no question of the script"):
        await run(engine, make_task(text="What is 7 + 7?"))


@pytest.mark.parametrize(
    "line", [{"question": "q"}, {"question": "q", "completions": []}, ["q"], {"completions": ["a"]}]
)
def test_a_script_that_lacks_something_is_refused_by_line(tmp_path: Path, line: object) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text(json.dumps({"question": "a", "completions": ["b"]}) + "\n" + json.dumps(line), encoding="utf-8")
    with pytest.raises(RecordingsError, match="line 2"):
        read_recordings(path)
