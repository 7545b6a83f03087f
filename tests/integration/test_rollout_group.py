"""Rollout actors as Ray processes: killed, stopped and restarted, with nothing lost and no task on old weights."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from corewarding.actors.engine import EngineContext
from corewarding.actors.engines import make_engine
from corewarding.actors.group import Member, RolloutGroup, RolloutGroupError
from corewarding.actors.rollout_actor import RolloutActor, accept_of
from corewarding.actors.settings import EngineSettings
from corewarding.dataflow.codec import decode
from corewarding.dataflow.errors import TaskFailedError
from corewarding.dataflow.ids import Version
from corewarding.launch.run.preflight.needs import process_environment
from corewarding.launch.run.publishing.publisher import Publisher
from corewarding.learner.settings import PublishSettings
from tests.weight_fakes import LocalLearner, make_task, write_model_folder, write_script


class Collector:
    """A buffer that keeps what it accepts by id."""

    def __init__(self) -> None:
        self.completions: dict[str, Any] = {}

    def accept(self, message: bytes) -> None:
        for completion in decode(message):
            self.completions[str(completion.id)] = (completion.attempt, completion.actor_id, completion.oldest_version)

    def contents(self) -> dict[str, Any]:
        return self.completions


class ScriptedRolloutActor(RolloutActor):
    """A rollout actor over the scripted engine that tells its process id."""

    def __init__(self, actor_id: str, folder: str, script: str, seconds_per_token: float, buffer: Any) -> None:
        from transformers import AutoTokenizer

        torch.set_num_threads(1)
        settings = EngineSettings(kind="scripted", script=script, script_seconds_per_token=seconds_per_token)
        engine = make_engine(EngineContext(settings=settings, model_path=folder, max_model_len=128, eos_token_ids=(0,)))
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        super().__init__(
            actor_id=actor_id,
            source="policy",
            engine=engine,
            decode=lambda ids: tokenizer.decode(ids, skip_special_tokens=True),
            extract=lambda text: text,
            buffer_accept=accept_of(buffer),
        )

    async def run(self, task: bytes) -> int:
        message = decode(task)
        name = message.id.asked.question_id
        if name.startswith("poison") or (name.startswith("allergy") and self._actor_id == "policy-0.0"):
            raise ValueError(f"{name} cannot be sampled")
        return await super().run(task)

    async def pid(self) -> int:
        return os.getpid()


class World:
    """A group over a collector, and the means to hurt it."""

    def __init__(self, folder: Path) -> None:
        self.buffer = ray.remote(Collector).options(num_cpus=0).remote()
        self.folder = write_model_folder(folder)
        self.script = write_script(folder / "script.jsonl")

    def group(
        self, num_actors: int, *, seconds_per_token: float = 0.0, max_restarts: int = 2, **keys: Any
    ) -> RolloutGroup:
        actor = ray.remote(ScriptedRolloutActor)

        def factory(index: int, restart: int) -> Any:
            return actor.options(num_cpus=keys.get("num_cpus", 0.1), max_restarts=0).remote(
                f"policy-{index}.{restart}", self.folder, self.script, seconds_per_token, self.buffer
            )

        timeout_s = keys.get("start_timeout_s", 180.0)  # a loaded machine imports torch five times at once
        return RolloutGroup(
            "policy", factory, num_actors=num_actors, max_restarts=max_restarts, start_timeout_s=timeout_s
        )

    async def signal(self, group: RolloutGroup, index: int, number: signal.Signals) -> Member:
        (member,) = [m for m in group.healthy() if m.index == index]
        os.kill(await group.call(member, "pid", timeout_s=10), number)
        return member


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    here = Path(__file__).resolve().parent
    environment = process_environment(1)
    environment["env_vars"]["PYTHONPATH"] += f":{here}"  # of this module, whose classes the workers import
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield World(tmp_path_factory.mktemp("world"))
    ray.shutdown()


async def test_a_killed_actor_is_replaced_and_its_tasks_are_requeued(world):
    group = world.group(2, seconds_per_token=0.2)
    current: list[str] = []

    async def bring_up(member: Member) -> None:
        assert member not in group.healthy()
        current.append(member.id)

    group.on_restart = bring_up
    await group.start()
    tasks = [make_task(f"k{i}", group_size=3) for i in range(6)]
    running = [asyncio.create_task(group.run(task)) for task in tasks]
    async with asyncio.timeout(2):  # a completion takes 3 s
        while [member.load for member in group.healthy()] != [3, 3]:
            await asyncio.sleep(0.01)
    await world.signal(group, 0, signal.SIGKILL)
    tokens = await asyncio.gather(*running)
    assert len(set(tokens)) == 1

    contents = await world.buffer.contents.remote()
    mine = {key: value for key, value in contents.items() if key.startswith("k")}
    assert set(mine) == {str(task.id.completion(i)) for task in tasks for i in range(3)}
    assert sorted(attempt for attempt, _, _ in mine.values()) == [0] * 9 + [1] * 9

    while len(group.healthy()) < 2:
        await asyncio.sleep(0.05)
    assert current == ["policy-0"]
    assert await group.run(make_task("again")) > 0
    stats = await group.stats()
    assert stats["rollout_policy/num_restarts"] == 1
    assert stats["rollout_policy/num_requeued_tasks"] == 3
    assert stats["rollout_policy/num_healthy"] == 2
    await group.close()


async def test_a_task_that_fails_on_two_actors_is_at_fault_and_otherwise_the_actor_is(world):
    group = world.group(2)
    await group.start()
    with pytest.raises(
        TaskFailedError, match=r"poison/e0/original/policy failed twice, on policy-0 and policy-1: .*poison cannot"
    ):
        await group.run(make_task("poison"))
    first = group.healthy()[0]
    assert [member.restart for member in group.healthy()] == [0, 0]
    assert await group.run(make_task("allergy")) > 0
    assert first.state == "lost"
    while len(group.healthy()) < 2:
        await asyncio.sleep(0.05)
    assert sorted((member.id, member.restart) for member in group.healthy()) == [("policy-0", 1), ("policy-1", 0)]
    await group.close()


async def test_evaluation_returns_completions_in_the_order_of_its_tasks(world):
    group = world.group(2)
    await group.start()
    completions = await group.sample([make_task(f"e{i}", group_size=2) for i in range(3)])
    assert [str(c.id) for c in completions] == [f"e{i}/e0/original/policy/{k}" for i in range(3) for k in range(2)]
    assert not any(key.startswith("e") for key in await world.buffer.contents.remote())
    await group.close()
    with pytest.raises(RolloutGroupError, match="closed"):
        await group.run(make_task("late"))


@pytest.mark.parametrize("backend", ["gloo", "ipc"])
async def test_versions_reach_actors_that_hang_die_and_come_back(world, backend):
    group, learner = world.group(2), LocalLearner(elements=100_000, bucket_bytes=1 << 16)
    publisher = Publisher("policy", learner, group, settings=PublishSettings(timeout_s=2.0, backend=backend))
    await group.start()
    await publisher.open()
    learner.updates = 1
    assert (await publisher.publish(Version(incarnation=0, updates=1))).num_acknowledged == 2

    hung = await world.signal(group, 1, signal.SIGSTOP)
    learner.updates = 2
    result = await publisher.publish(Version(incarnation=0, updates=2))
    assert hung.state == "lost"
    assert result.num_acknowledged >= 1
    while len(group.healthy()) < 2:
        await asyncio.sleep(0.05)
    versions = [decode(await group.call(member, "version", timeout_s=10)) for member in group.healthy()]
    assert versions == [Version(incarnation=0, updates=2)] * 2
    await asyncio.gather(*(group.run(make_task(f"v{i}")) for i in range(4)))
    contents = await world.buffer.contents.remote()
    assert {version for key, (_, _, version) in contents.items() if key.startswith("v")} == {2}

    await world.signal(group, 0, signal.SIGKILL)  # not noticed before the next publication
    learner.updates = 3
    await publisher.publish(Version(incarnation=0, updates=3))
    while len(group.healthy()) < 2:
        await asyncio.sleep(0.05)
    versions = [decode(await group.call(member, "version", timeout_s=10)) for member in group.healthy()]
    assert versions == [Version(incarnation=0, updates=3)] * 2
    await publisher.close()
    await group.close()


async def test_the_only_actor_dying_holds_a_publication_up_but_does_not_end_it(world):
    group, learner = world.group(1), LocalLearner()
    publisher = Publisher("policy", learner, group, settings=PublishSettings(timeout_s=2.0))
    await group.start()
    await world.signal(group, 0, signal.SIGKILL)
    learner.updates = 1
    assert (await publisher.publish(Version(incarnation=0, updates=1))).num_acknowledged == 1
    assert await group.run(make_task("alone")) > 0
    await publisher.close()
    await group.close()


async def test_restarts_run_out(world):
    group = world.group(1, seconds_per_token=0.5, max_restarts=0)
    await group.start()
    running = asyncio.create_task(group.run(make_task("doomed")))
    await asyncio.sleep(0.2)
    await world.signal(group, 0, signal.SIGKILL)
    with pytest.raises(RolloutGroupError, match=r"policy-0 is lost: it died again after 0 restarts \(rollout.max_re"):
        await asyncio.wait_for(running, 20)
    await group.close()


async def test_what_does_not_start_is_named(world):
    group = world.group(2, num_cpus=64, start_timeout_s=1.0)
    started = time.monotonic()
    with pytest.raises(RolloutGroupError, match=r"2 of 2 policy actors did not start: policy-0, policy-1 .*CPU 2"):
        await group.start()
    assert time.monotonic() - started < 10
    await group.close()
