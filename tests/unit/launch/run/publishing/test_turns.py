"""Turns of the learner: one alone, or several transfers together, in the order in which they ask."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from corewarding.dataflow.ids import Channel, Version
from corewarding.launch.run.publishing.publisher import Publisher
from corewarding.launch.run.publishing.turns import LearnerTurns
from corewarding.learner.settings import PublishSettings
from tests.unit.launch.run.publishing.test_publisher import folder, group_of, versions  # noqa: F401  fixtures
from tests.weight_fakes import LocalLearner


class Seen:
    """Who is inside, and who may leave."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @asynccontextmanager
    async def of(self, name: str, turn: AbstractAsyncContextManager[None]) -> AsyncIterator[None]:
        async with turn:
            self.events.append(f"+{name}")
            yield
            self.events.append(f"-{name}")

    async def hold(self, name: str, turn: AbstractAsyncContextManager[None], leave: asyncio.Event) -> None:
        async with self.of(name, turn):
            await leave.wait()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_transfers_run_together_and_an_update_waits_for_all_of_them() -> None:
    turns, seen, leave = LearnerTurns(), Seen(), [asyncio.Event() for _ in range(4)]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(seen.hold("a", turns.together(), leave[0]))
        tasks.create_task(seen.hold("b", turns.together(), leave[1]))
        await settled()
        tasks.create_task(seen.hold("update", turns.alone(), leave[2]))
        await settled()
        tasks.create_task(seen.hold("c", turns.together(), leave[3]))  # came after the update
        await settled()
        assert seen.events == ["+a", "+b"]
        leave[1].set()
        await settled()
        assert seen.events == ["+a", "+b", "-b"]
        leave[0].set()
        await settled()
        assert seen.events[3:] == ["-a", "+update"]
        leave[2].set()
        await settled()
        assert seen.events[5:] == ["-update", "+c"]
        leave[3].set()


async def test_whoever_is_cancelled_while_it_waits_or_within_leaves_the_turn_to_others() -> None:
    turns, seen, never = LearnerTurns(), Seen(), asyncio.Event()
    inside = asyncio.create_task(seen.hold("update", turns.alone(), never))
    await settled()
    waiting = [asyncio.create_task(seen.hold("x", turn, never)) for turn in (turns.together(), turns.alone())]
    await settled()
    for task in (*waiting, inside):
        task.cancel()
        await settled()
    last = asyncio.create_task(seen.hold("transfer", turns.together(), never))
    await settled()
    last.cancel()
    await asyncio.gather(*waiting, inside, last, return_exceptions=True)
    async with asyncio.timeout(1), turns.alone():
        assert seen.events == ["+update", "+transfer"]


class Watched(LocalLearner):
    """Says when each call begins and ends."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []
        self.together = asyncio.Event()

    async def announce(self, channel: Channel, *words: object):  # type: ignore[no-untyped-def, override]
        self.calls.append(("announce", channel))
        if [name for name, _ in self.calls].count("announce") == 2:
            self.together.set()
        return await super().announce(channel, *words)  # type: ignore[arg-type]

    async def send(self, channel: Channel) -> None:
        async with asyncio.timeout(5):
            await self.together.wait()  # the other channel's transfer has begun, too
        self.calls.append(("send", channel))
        await super().send(channel)
        self.calls.append(("sent", channel))


async def test_both_channels_are_transferred_beside_each_other_and_their_streams_in_turn(group_of) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    learner, turns = Watched(), LearnerTurns()
    groups = {channel: group_of(1) for channel in ("teacher", "policy")}
    publishers = {
        channel: Publisher(channel, learner, group, settings=PublishSettings(timeout_s=5.0), turns=turns)
        for channel, group in groups.items()
    }
    for publisher in publishers.values():
        await publisher.open()
    learner.updates = 3
    sent = {channel: asyncio.Event() for channel in groups}
    version = Version(incarnation=0, updates=3)
    publishing = [asyncio.create_task(publishers[channel].publish(version, sent[channel])) for channel in groups]
    await settled()
    async with turns.alone():
        assert [name for name, _ in learner.calls] == ["announce", "announce", "send", "sent", "send", "sent"]
        assert learner.calls[2][1] == learner.calls[3][1] != learner.calls[4][1] == learner.calls[5][1]
    for one in publishing:
        await one
    assert [await versions(group) for group in groups.values()] == [[3], [3]]
    assert all(event.is_set() for event in sent.values())
    for publisher in publishers.values():
        await publisher.close()
