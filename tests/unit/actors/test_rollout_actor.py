"""The rollout actor: what it tags, when it counts a group as delivered, and what it lets through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corewarding.actors import rollout_actor
from corewarding.actors.engine import EngineContext, EngineError, EngineStats, SampledSequence
from corewarding.actors.rollout_actor import (
    BufferLostError,
    BufferUnavailableError,
    RolloutActor,
    accept_of,
    build_rollout_actor,
)
from corewarding.actors.settings import EngineSettings
from corewarding.dataflow.carriers import RolloutTask
from corewarding.dataflow.codec import decode, encode
from corewarding.dataflow.ids import Version
from corewarding.dataflow.weights import Rendezvous, WeightManifest
from tests.weight_fakes import COMPLETIONS, make_task, write_model_folder, write_script


class FakeEngine:
    """Sequence i is i + 1 tokens of value i; the last one comes first."""

    max_model_len = 64

    def __init__(self, *, missing: int = 0) -> None:
        self.version = Version(incarnation=0, updates=7)
        self.calls: list[tuple] = []
        self.missing = missing
        self.tokens = 0
        self.busy_s = self.idle_s = 0.0

    async def generate(self, task: RolloutTask) -> AsyncIterator[SampledSequence]:
        for index in reversed(range(self.missing, task.group_size)):
            self.tokens += index + 1
            yield SampledSequence(
                sample_index=index,
                token_ids=np.full(index + 1, index, np.int32),
                behavior_logprobs=np.full(index + 1, -1.0, np.float32),
                token_versions=np.full(index + 1, 7, np.int32),
                finish_reason="stop",
                started_s=10.0,
                finished_s=11.0,
            )

    async def commit(self, version: Version) -> None:
        self.calls.append(("commit", version))

    async def join(self, rendezvous: Rendezvous, rank: int) -> None:
        self.calls.append(("join", rendezvous, rank))

    async def begin(self, manifest: WeightManifest) -> None:
        self.calls.append(("begin", manifest))

    async def receive(self) -> None:
        self.calls.append(("receive",))

    async def abort(self, task: RolloutTask) -> None:
        self.calls.append(("abort", str(task.id)))

    async def abort_update(self) -> None:
        self.calls.append(("abort_update",))

    def stats(self) -> EngineStats:
        return EngineStats(
            generated_tokens=self.tokens,
            prefill_tokens=0,
            steps=0,
            busy_s=self.busy_s,
            idle_s=self.idle_s,
            swap_s=0.0,
            running=2,
            queued=3,
        )


class FakeBuffer:
    """Refuses the first `failures` deliveries."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.messages: list[bytes] = []
        self.open = asyncio.Event()
        self.open.set()

    async def accept(self, message: bytes) -> None:
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            raise BufferUnavailableError("restarting")
        self.messages.append(message)


def actor_of(engine: Any = None, buffer: FakeBuffer | None = None, **keys: Any) -> RolloutActor:
    return RolloutActor(
        actor_id="policy-0",
        source="policy",
        engine=engine if engine is not None else FakeEngine(),  # type: ignore[arg-type]
        decode=lambda ids: " ".join(map(str, ids)),
        extract=lambda text: text[-1] if text != "0" else None,
        buffer_accept=(buffer or FakeBuffer()).accept,
        **keys,
    )


@pytest.fixture(autouse=True)
def _quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_actor, "FIRST_BACKOFF_S", 0.001)
    monkeypatch.setattr(rollout_actor, "LONGEST_BACKOFF_S", 0.004)


async def test_a_group_is_tagged_sorted_and_delivered_in_one_message() -> None:
    buffer, task = FakeBuffer(), make_task(group_size=3)
    assert await actor_of(buffer=buffer).run(encode(task)) == 1 + 2 + 3
    (message,) = buffer.messages
    completions = decode(message)
    assert [str(c.id) for c in completions] == [f"q/e0/original/policy/{i}" for i in range(3)]
    assert [c.text for c in completions] == ["0", "1 1", "2 2 2"]
    assert [c.answer for c in completions] == [None, "1", "2"]
    first = completions[0]
    assert first.prompt_token_ids.tolist() == task.prompt_token_ids.tolist()
    assert (first.actor_id, first.temperature, first.timings.finished_s) == ("policy-0", 1.0, 11.0)


async def test_run_returns_only_after_the_acknowledgement() -> None:
    buffer = FakeBuffer()
    buffer.open.clear()
    actor = actor_of(buffer=buffer)
    running = asyncio.create_task(actor.run(encode(make_task())))
    await asyncio.sleep(0.02)
    assert not running.done()
    assert (await actor.stats()).sums["undelivered"] == 1
    buffer.open.set()
    assert await running == 3
    assert (await actor.stats()).sums["undelivered"] == 0


async def test_the_same_group_is_sent_again_until_the_buffer_is_back() -> None:
    buffer, engine = FakeBuffer(failures=4), FakeEngine()
    await actor_of(engine, buffer).run(encode(make_task()))
    assert len(buffer.messages) == 1
    assert engine.tokens == 3  # sampled once


async def test_patience_with_the_buffer_ends() -> None:
    with pytest.raises(BufferUnavailableError):
        await actor_of(buffer=FakeBuffer(failures=10**6), buffer_patience_s=0.05).run(encode(make_task()))


async def test_evaluation_goes_past_the_buffer() -> None:
    buffer = FakeBuffer()
    completions = decode(await actor_of(buffer=buffer).sample(encode(make_task(group_size=1))))
    assert [c.text for c in completions] == ["0"]
    assert buffer.messages == []


async def test_tasks_of_another_source_and_incomplete_groups_are_refused() -> None:
    with pytest.raises(EngineError, match="samples from the policy"):
        await actor_of().run(encode(make_task(source="teacher")))
    with pytest.raises(EngineError, match="after 1 of 2 sequences"):
        await actor_of(FakeEngine(missing=1)).run(encode(make_task()))


async def test_updates_and_aborts_reach_the_engine_as_messages() -> None:
    engine = FakeEngine()
    actor = actor_of(engine)
    version = Version(incarnation=1, updates=8)
    rendezvous = Rendezvous(
        channel="policy", group_epoch=1, host="h", port=1, world_size=2, backend="gloo", timeout_s=1.0, key=bytes(32)
    )
    manifest = WeightManifest(channel="policy", version=version, group_epoch=1, bucket_bytes=64, tensors=())
    await actor.join(encode(rendezvous), 1)
    await actor.begin(encode(manifest))
    await actor.receive()
    await actor.commit(encode(version))
    await actor.abort_update()
    await actor.abort(encode(make_task()))
    expected = [("join", rendezvous, 1), ("begin", manifest), ("receive",), ("commit", version), ("abort_update",)]
    assert [call[0] for call in engine.calls] == [*(call[0] for call in expected), "abort"]
    assert engine.calls[0] == expected[0]
    assert engine.calls[3] == expected[3]
    assert engine.calls[1][1].version == version
    assert decode(await actor.version()) == Version(incarnation=0, updates=7)
    assert (await actor.stats()).sums["swaps"] == 1


async def test_shares_are_of_the_time_since_the_last_report() -> None:
    engine = FakeEngine()
    actor = actor_of(engine)
    engine.busy_s, engine.idle_s = 100.0, 300.0
    assert (await actor.stats()).means["busy_frac"] == 0.25
    engine.busy_s += 3.0
    engine.idle_s += 1.0
    engine.tokens = 50
    report = await actor.stats()
    assert (report.means["busy_frac"], report.means["idle_frac"]) == (0.75, 0.25)
    assert report.sums["tokens"] == 50
    assert report.sums["tokens_per_s"] > 0
    assert (report.sums["running"], report.sums["queued"]) == (2, 3)


async def test_only_an_absent_buffer_is_worth_another_try() -> None:
    from ray.exceptions import ActorDiedError, ActorUnavailableError

    class Handle:
        def __init__(self, error: Exception) -> None:
            self.accept = self
            self.error = error

        async def remote(self, message: bytes) -> None:
            raise self.error

    with pytest.raises(BufferUnavailableError):
        await accept_of(Handle(ActorUnavailableError("restarting", b"0" * 16)))(b"")
    with pytest.raises(BufferLostError):
        await accept_of(Handle(ActorDiedError()))(b"")


async def test_a_placed_actor_builds_its_own_parts(tmp_path: Path) -> None:
    pytest.importorskip("corewarding.questions.template")
    pytest.importorskip("corewarding.rewards.answers.extract")

    class Handle(FakeBuffer):
        @property
        def accept(self) -> Handle:
            return self

        async def remote(self, message: bytes) -> None:
            self.messages.append(message)

    buffer = Handle()
    actor = build_rollout_actor(
        actor_id="policy-0",
        source="policy",
        context=EngineContext(
            settings=EngineSettings(kind="scripted", script=write_script(tmp_path / "script.jsonl")),
            model_path=write_model_folder(tmp_path),
            max_model_len=128,
            version=Version(incarnation=2, updates=5),
        ),
        system_prompt="Think.",
        buffer=buffer,
    )
    assert decode(await actor.version()) == Version(incarnation=2, updates=5)
    await actor.run(encode(make_task(group_size=3)))
    completions = decode(buffer.messages[0])
    assert [c.text for c in completions] == COMPLETIONS
    assert [c.answer for c in completions][:2] == ["5", "6"]
    assert {c.oldest_version for c in completions} == {5}
    await actor.close()
