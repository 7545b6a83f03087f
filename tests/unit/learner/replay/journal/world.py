"""A run without engines and learner, for tests of the journal: what the driver and the actors would send, drawn at random."""

import asyncio
import random
from pathlib import Path
from typing import Any

from corewarding.dataflow.carriers import TokenStatistics, TrainingSample, UpdateReport
from corewarding.dataflow.codec import decode_as, decode_list, encode
from corewarding.dataflow.ids import AskedId, GroupId
from corewarding.learner.replay.actor import BufferActor
from corewarding.learner.replay.admission import AdmissionLimits
from corewarding.learner.replay.journal.journal import JournalPlan
from corewarding.learner.replay.journal.records import Start
from corewarding.learner.replay.scoring import BufferPlan
from corewarding.questions.gold import GoldAnswers
from corewarding.rewards.rules.table import REWARD_RULES
from tests.fakes import fake_group


def start_of(name: str, *, goes_on: bool = False, updates: int = 0, incarnation: int = 0) -> Start:
    return Start(
        start=name,
        goes_on=goes_on,
        incarnation=incarnation,
        updates=updates,
        time_s=1.0,
        config="rule: x\n",
        setting={"ranks": 1},
    )


LIMITS: dict[str, dict[str, Any]] = {
    "wait": {},
    "drop": {"on_exceed": "drop", "staleness_max": 1, "depth": 2},
    "withhold": {"on_exceed": "withhold", "staleness_max": 1, "depth": 2},
}


def plan_of(rule: str, on_exceed: str = "wait", **changes: Any) -> BufferPlan:
    values: dict[str, Any] = {"questions_per_update": 2, "total_updates": 30, "staleness_max": 2, "depth": 2}
    limits = AdmissionLimits(**values | LIMITS[on_exceed] | ({"label_max": 9} if rule == "co_rewarding_ii" else {}))
    return BufferPlan(rule=rule, group_size=4, run_seed=1, incarnation=0, limits=limits, **changes)


class World:
    """A run without engines and learner: what the driver and the actors would send, drawn at random."""

    def __init__(
        self,
        plan: BufferPlan,
        folder: Path,
        seed: int,
        *,
        saves: bool = True,
        start: Start | None = None,
        state: dict[str, Any] | None = None,
        length: int = 3,
    ) -> None:
        """length: tokens of each completion. state: of a checkpoint, from which the run goes on; what it had asked is asked again."""
        self.saves, self.own_start, self.state, self.length = saves, start or start_of("one"), state, length
        self.plan, self.folder, self.draws = plan, folder, random.Random(seed)
        self.actor = self.start()
        self.calls, self.asked, self.updates, self.sent = 0, 0, 0, list[bytes]()
        self.again: list[AskedId] = []
        if state is not None:
            self.updates = state["updates_done"]
            self.again = [AskedId(question_id=name, epoch=epoch) for name, epoch in state["pending"]]
        self.missing: list[GroupId] = []
        self.batches: list[bytes] = []

    def start(self, start: Start | None = None) -> BufferActor:
        journal = JournalPlan(folder=self.folder, start=start or self.own_start, cursor={}, segment_bytes=20_000)
        return BufferActor(self.plan, GoldAnswers({"q1": "1"}), self.state, journal=journal)

    def kill(self) -> None:
        """The process dies: nothing is closed, nothing is said."""
        self.actor = self.start()

    async def step(self) -> None:
        await self.draws.choice([self.admit, self.accept, self.accept, self.accept, self.take, self.acknowledge])()

    async def admit(self) -> None:
        self.calls += 1
        offered = [*self.again, *(AskedId(question_id=f"q{self.asked + k}", epoch=0) for k in range(3))]
        num = await self.actor.admit(self.calls, encode(offered))
        for asked in offered[:num]:
            self.missing += [asked.group(*kind) for kind in self.groups]
        self.asked += max(0, num - len(self.again))
        self.again = self.again[num:]
        assert await self.actor.admit(self.calls, encode(offered)) == num  # the answer was lost and is asked for again

    @property
    def groups(self) -> list[Any]:
        return list(REWARD_RULES[self.plan.rule].groups)

    async def accept(self) -> None:
        if not self.missing or self.draws.random() < 0.1:
            if self.sent:
                await self.actor.accept(self.draws.choice(self.sent))  # again
            return
        group = self.missing.pop(self.draws.randrange(len(self.missing)))
        if self.draws.random() < 0.05:
            await self.actor.give_up(encode([group.asked]))
        answers = [self.draws.choice(["1", "2", None]) for _ in range(4)]
        message = fake_group(
            group.question_id,
            answers,
            view=group.view,
            source=group.source,
            version=max(0, self.updates),
            incarnation=self.plan.incarnation,
            length=self.length,
        )
        self.sent.append(encode(message))
        await self.actor.accept(self.sent[-1])

    async def acknowledge(self) -> None:
        await self.actor.acknowledged("policy", self.updates)
        await self.actor.acknowledged("teacher", self.updates)

    async def take(self) -> None:
        taking = asyncio.ensure_future(self.actor.take(self.updates + 1))
        await asyncio.sleep(0)
        if not taking.done():
            taking.cancel()
            return
        batch = await self.scored(*await taking)
        if self.draws.random() < 0.3:
            self.kill()  # before the driver has the answer: the call is made again
            assert await self.scored(*await self.actor.take(self.updates + 1)) == batch
        self.updates += 1
        self.batches.append(batch)
        assert decode_as(await self.actor.report(self.updates), UpdateReport).update == self.updates
        await self.actor.updated(self.updates, f"digest {self.updates}")
        if self.saves and self.draws.random() < 0.3:
            assert (await self.actor.state({}))["updates_done"] == self.updates

    async def scored(self, num: int, is_scored: bool, batch: bytes) -> bytes:
        if is_scored:
            return batch
        samples = decode_list(batch, TrainingSample)
        assert len(samples) == num
        found = [TokenStatistics(id=s.id, self_certainty=0.5, entropy=float(k)) for k, s in enumerate(samples)]
        return (await self.actor.score(self.updates + 1, encode(found)))[1]

    def snapshot(self) -> object:
        return self.actor.buffer.snapshot()
