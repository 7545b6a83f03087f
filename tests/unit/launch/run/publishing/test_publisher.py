"""The publisher over real weight groups and engines: which members are fenced, what is repeated, when it gives up."""

import asyncio
from typing import Any

import pytest

from corewarding.actors.engine import EngineContext, EngineError
from corewarding.actors.group import Member, MemberLostError, RolloutGroupError
from corewarding.actors.rollout_actor import RolloutActor
from corewarding.actors.scripted.engine import ScriptedEngine
from corewarding.actors.settings import EngineSettings
from corewarding.dataflow.codec import decode
from corewarding.dataflow.ids import Version
from corewarding.launch.run.publishing.publisher import Publisher, PublishError
from corewarding.learner.settings import PublishSettings
from corewarding.weights.group import TransportError
from tests.weight_fakes import LocalLearner, write_model_folder, write_script


class LocalGroup:
    """The part of a RolloutGroup that a publisher uses, over actors in this process; what is fenced stays out."""

    def __init__(self, actors: list[RolloutActor]) -> None:
        self.members = [Member(index=i, source="policy", handle=a, state="healthy") for i, a in enumerate(actors)]
        self.fenced: list[tuple[int, str]] = []
        self.faults: dict[tuple[int, str], Exception] = {}  # raised once in place of (member, method)
        self.on_restart: Any = None

    def receivers(self) -> list[Member]:
        return [m for m in self.members if m.state in ("healthy", "stale")]

    async def wait_receivers(self) -> list[Member]:
        if not self.receivers():
            raise RolloutGroupError("policy-0 is lost")
        return self.receivers()

    def fence(self, member: Member, reason: str) -> None:
        self.fenced.append((member.index, reason))
        member.state = "lost"

    def readmit(self, member: Member) -> None:
        member.state = "healthy"

    async def call(self, member: Member, method: str, *args: Any, timeout_s: float | None) -> Any:
        fault = self.faults.pop((member.index, method), None)
        if fault is not None:
            raise fault
        return await asyncio.wait_for(getattr(member.handle, method)(*args), timeout_s)


async def ignore(message: bytes) -> None: ...


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def group_of(folder, tmp_path):
    def actor(index: int) -> RolloutActor:
        settings = EngineSettings(kind="scripted", script=write_script(tmp_path / "script.jsonl"))
        engine = ScriptedEngine(
            EngineContext(settings=settings, model_path=folder, max_model_len=64, eos_token_ids=(0,))
        )
        return RolloutActor(
            actor_id=f"policy-{index}", source="policy", engine=engine, decode=str, extract=str, buffer_accept=ignore
        )

    return lambda num: LocalGroup([actor(index) for index in range(num)])


def publisher_of(learner: LocalLearner, group: LocalGroup, timeout_s: float = 5.0) -> Publisher:
    return Publisher("policy", learner, group, settings=PublishSettings(timeout_s=timeout_s))  # type: ignore[arg-type]


async def versions(group: LocalGroup) -> list[int]:
    return [decode(await member.handle.version()).updates for member in group.members]


def updates(number: int) -> Version:
    return Version(incarnation=0, updates=number)


async def test_a_version_is_published_to_all_over_one_group(group_of):
    learner, group = LocalLearner(), group_of(2)
    publisher = publisher_of(learner, group)
    await publisher.open()
    for number in (1, 2):
        learner.updates = number
        result = await publisher.publish(updates(number))
        assert (result.num_acknowledged, result.bytes) == (2, 4000)
        assert await versions(group) == [number, number]
        assert learner.announced["policy"].group_epoch == 1
    assert group.fenced == []
    await publisher.close()


async def test_the_learner_goes_on_when_the_weights_have_left_it(group_of, monkeypatch):
    learner, group = LocalLearner(), group_of(1)
    publisher = publisher_of(learner, group)
    may_commit, sent, plain = asyncio.Event(), asyncio.Event(), group.call

    async def call(member, method, *words, **keys):
        if method == "commit":
            await may_commit.wait()
        return await plain(member, method, *words, **keys)

    monkeypatch.setattr(group, "call", call)
    learner.updates = 1
    publishing = asyncio.create_task(publisher.publish(updates(1), sent))
    await asyncio.wait_for(sent.wait(), 5)
    learner.updates = 2
    assert await versions(group) == [0]
    may_commit.set()
    assert (await publishing).num_acknowledged == 1
    assert await versions(group) == [1]
    await publisher.close()


async def test_checksums_travel_as_often_as_asked(group_of):
    learner, group = LocalLearner(), group_of(1)
    settings = PublishSettings(timeout_s=5.0, checksum_every=2)
    publisher = Publisher("policy", learner, group, settings=settings)  # type: ignore[arg-type]
    carried = []
    for _ in range(4):
        await publisher.publish(updates(0))
        carried.append(learner.announced["policy"].tensors[0].checksum is not None)
    assert carried == [True, False, True, False]
    await publisher.close()


DEATH, REFUSAL, MISFIT = MemberLostError("policy-0 died"), EngineError("refused"), TransportError("does not fit")


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("join", DEATH),
        ("begin", DEATH),
        ("receive", DEATH),
        ("commit", DEATH),
        ("begin", MISFIT),
        ("commit", MISFIT),
        ("commit", REFUSAL),
    ],
)
async def test_one_that_fails_is_fenced_and_the_rest_get_the_version(group_of, method, fault):
    learner, group = LocalLearner(), group_of(2)
    publisher = publisher_of(learner, group, timeout_s=0.5)
    group.faults[0, method] = fault
    learner.updates = 1
    assert (await publisher.publish(updates(1))).num_acknowledged == 1
    assert (await versions(group))[1] == 1
    assert group.fenced == [(0, str(fault))]
    await publisher.close()


@pytest.mark.parametrize("method", ["join", "receive"])
async def test_a_broken_group_is_rebuilt_where_nobody_is_to_blame(group_of, method):
    learner, group = LocalLearner(), group_of(2)
    publisher = publisher_of(learner, group, timeout_s=0.3)
    group.faults[0, method] = MISFIT  # then the sender fails too, and so does the other receiver
    learner.updates = 1
    assert (await publisher.publish(updates(1))).num_acknowledged == 2
    assert await versions(group) == [1, 1]
    assert group.fenced == []
    assert learner.announced["policy"].group_epoch == 2
    await publisher.close()


async def test_groups_that_keep_breaking_are_an_error_with_the_causes(group_of):
    class Mute(LocalLearner):
        async def connect_channel(self, rendezvous) -> None:
            raise TransportError("no route")

    group = group_of(1)
    publisher = publisher_of(Mute(), group, timeout_s=1.0)
    with pytest.raises(PublishError, match=r"failed 3 times, no receiver to blame: no route; policy-0: .*did not join"):
        await publisher.publish(updates(0))
    assert group.fenced == []


async def test_nobody_left_is_an_error(group_of):
    group = group_of(1)
    publisher = publisher_of(LocalLearner(), group)
    group.faults[0, "begin"] = MemberLostError("policy-0 died")
    with pytest.raises(RolloutGroupError, match="policy-0 is lost"):
        await publisher.publish(updates(0))


async def test_the_learner_must_be_at_the_version_asked_for(group_of):
    learner, group = LocalLearner(), group_of(1)
    publisher = publisher_of(learner, group)
    learner.updates = 4
    with pytest.raises(PublishError, match=r"asked to publish 0\.3, but the learner is at 0\.4"):
        await publisher.publish(updates(3))
    assert await versions(group) == [0]
    await publisher.close()


async def test_an_error_of_the_learner_is_no_receivers_fault(group_of):
    class Broken(LocalLearner):
        async def send(self, channel) -> None:
            raise KeyError("a mistake of ours")

    learner, group = Broken(), group_of(1)
    publisher = publisher_of(learner, group, timeout_s=0.3)
    with pytest.raises(KeyError):
        await publisher.publish(updates(0))


async def test_a_restarted_member_is_brought_up_and_the_next_version_reaches_all(group_of):
    learner, group = LocalLearner(), group_of(2)
    publisher = publisher_of(learner, group)
    learner.updates = 1
    await publisher.publish(updates(1))
    newcomer = group_of(1).members[0]
    newcomer.state = "stale"
    group.members[0] = newcomer
    await group.on_restart(newcomer)
    assert await versions(group) == [1, 1]
    assert newcomer.state == "stale"  # readmitting is the group's
    group.readmit(newcomer)
    learner.updates = 2
    assert (await publisher.publish(updates(2))).num_acknowledged == 2
    assert await versions(group) == [2, 2]
    await publisher.close()


async def test_a_newcomer_that_fails_is_reported_to_its_restart(group_of):
    group = group_of(1)
    publisher_of(LocalLearner(), group, timeout_s=0.3)
    group.members[0].state = "stale"
    group.faults[0, "receive"] = MemberLostError("policy-0 died in receive")
    with pytest.raises(MemberLostError, match="died in receive"):
        await group.on_restart(group.members[0])
    assert group.fenced == []
