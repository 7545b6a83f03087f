"""A learner that comes back: which calls are made again, which are broken, and when it does not come back."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from corewarding.dataflow.carriers import StepResult
from corewarding.dataflow.ids import Version
from corewarding.dataflow.metrics import Metrics
from corewarding.dataflow.weights import Rendezvous
from corewarding.launch.run.journal.returning import ReturningLearner
from corewarding.launch.run.protocols import StagedLostError
from corewarding.learner.group import LearnerDiedError
from corewarding.weights.group import TransportError

POLICY = Rendezvous(
    channel="policy",
    group_epoch=1,
    host="127.0.0.1",
    port=1,
    world_size=2,
    backend="gloo",
    timeout_s=1.0,
    key=b"",
)


class Ranks:
    """A group of ranks that dies at a call."""

    def __init__(self, name: str, *, dies_at: str = "", updates: int = 0) -> None:
        self.name, self.dies_at, self.updates = name, dies_at, updates
        self.calls: list[str] = []
        self.closed = False
        self.doing = None

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.closed or name == self.dies_at:
            raise LearnerDiedError(f"a learner rank died during {name}: {self.name}")

    async def version(self, channel: str = "policy") -> Version:
        self._called("version")
        return Version(incarnation=0, updates=self.updates)

    async def update(self, batch: bytes) -> StepResult:
        await asyncio.sleep(0)
        self._called("update")
        self.updates += 1
        return StepResult(version=Version(incarnation=0, updates=self.updates), metrics=Metrics(), wall_s=0.0)

    async def write(self, folder: Path) -> None:
        await asyncio.sleep(0)
        self._called("write")

    async def connect_channel(self, rendezvous: Rendezvous) -> None:
        self._called("connect")

    async def announce(self, *words: Any) -> None:
        self._called("announce")

    async def send(self, channel: str) -> None:
        self._called("send")

    async def close(self) -> None:
        self.closed = True


class World:
    def __init__(self, *groups: Ranks, max_restarts: int = 3) -> None:
        self.waiting = list(groups[1:])
        self.said: list[str] = []
        self.restored: list[tuple[str, int]] = []
        self.fails: Exception | None = None
        self.learner = ReturningLearner(
            groups[0],  # type: ignore[arg-type]
            updates=0,
            make=lambda: self.waiting.pop(0),  # type: ignore[arg-type, return-value]
            restore=self.restore,  # type: ignore[arg-type]
            max_restarts=max_restarts,
            say=self.said.append,
        )

    async def restore(self, ranks: Ranks, updates: int) -> str:
        assert self.learner.starting
        await asyncio.sleep(0)
        if self.fails is not None:
            raise self.fails
        ranks.updates = updates
        self.restored.append((ranks.name, updates))
        return "all is there"


async def test_an_update_is_made_again_on_other_ranks_with_the_weights_before_it() -> None:
    first, second = Ranks("first"), Ranks("second")
    world = World(first, second)
    await world.learner.update(b"1")
    first.dies_at = "update"
    assert (await world.learner.update(b"2")).version.updates == 2
    assert world.restored == [("second", 1)]
    assert first.closed
    assert not world.learner.starting
    assert world.said[0] == "a learner rank died during update: first; the learner is started again (1 of 3)"
    assert world.said[1].endswith("all is there")


async def test_calls_that_meet_one_death_bring_one_group_back() -> None:
    first = Ranks("first", dies_at="update")
    world = World(first, Ranks("second"), Ranks("third"))
    first.closed = True  # every call fails
    results = await asyncio.gather(
        world.learner.update(b"1"), world.learner.write(Path("x")), world.learner.version(), return_exceptions=True
    )
    assert [type(result) for result in results] == [StepResult, StagedLostError, Version]
    assert [name for name, _ in world.restored] == ["second"]


@pytest.mark.parametrize("call", ["announce", "send"])
async def test_a_transfer_that_meets_a_death_is_broken(call: str) -> None:
    world = World(Ranks("first", dies_at=call), Ranks("second"))
    await world.learner.connect_channel(POLICY)

    async def transfer() -> None:
        await world.learner.announce("policy", 1, True, "policy")
        await world.learner.send("policy")

    with pytest.raises(TransportError, match="came back without what it had begun"):
        await transfer()
    assert (await world.learner.version()).updates == 0


async def test_what_dead_ranks_announced_is_not_asked_of_others() -> None:
    """The transfer of the other channel has met their death."""
    first, second = Ranks("first", dies_at="send"), Ranks("second")
    world = World(first, second)
    await world.learner.connect_channel(POLICY)
    await world.learner.connect_channel(dataclasses.replace(POLICY, channel="teacher"))
    for channel in ("teacher", "policy"):
        await world.learner.announce(channel, 1, True, channel)
    with pytest.raises(TransportError, match="came back without what it had begun"):
        await world.learner.send("teacher")
    with pytest.raises(TransportError, match="was that of ranks which died"):
        await world.learner.send("policy")
    assert "send" not in second.calls


async def test_a_weight_group_of_dead_ranks_is_broken_before_any_rank_begins() -> None:
    first, second = Ranks("first"), Ranks("second")
    world = World(first, second)
    await world.learner.connect_channel(POLICY)
    await world.learner.announce("policy", 1, True, "policy")
    first.dies_at = "update"
    await world.learner.update(b"1")
    with pytest.raises(TransportError, match="ranks which died"):
        await world.learner.announce("policy", 1, True, "policy")
    assert "announce" not in second.calls
    await world.learner.connect_channel(POLICY)
    await world.learner.announce("policy", 2, True, "policy")


async def test_more_deaths_than_allowed_end_the_run_and_so_does_a_group_that_cannot_be_restored() -> None:
    groups = [Ranks(str(number), dies_at="update") for number in range(3)]
    world = World(*groups, max_restarts=2)
    with pytest.raises(LearnerDiedError, match="died during update: 2"):
        await world.learner.update(b"1")
    assert [name for name, _ in world.restored] == ["1", "2"]
    world = World(Ranks("first", dies_at="version"), second := Ranks("second"))
    world.fails = LearnerDiedError("the second died, too")
    with pytest.raises(LearnerDiedError, match="the second died, too"):
        await world.learner.version()
    assert second.closed
    assert not world.learner.starting
