"""The client and the actor together, without Ray: what one encodes, the other decodes, and batches stay bytes in between."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from ray.exceptions import RayActorError

from corewarding.dataflow.carriers import TokenStatistics, TrainBatch, TrainingSample
from corewarding.dataflow.codec import CodecError, decode_as, decode_list, encode
from corewarding.dataflow.ids import AskedId
from corewarding.learner.replay.actor import BufferActor
from corewarding.learner.replay.admission import AdmissionLimits
from corewarding.learner.replay.client import BufferClient, BufferDiedError
from corewarding.learner.replay.scoring import BufferPlan
from corewarding.questions.gold import GoldAnswers
from tests.fakes import fake_group

ASKED = AskedId(question_id="q", epoch=0)


class Method:
    """One method of a local handle; several return values are one future each."""

    def __init__(self, method: Callable[..., Awaitable[Any]], num_returns: int = 1) -> None:
        self.method, self.num_returns = method, num_returns

    def options(self, *, num_returns: int) -> "Method":
        return Method(self.method, num_returns)

    def remote(self, *args: Any) -> Any:
        answer = asyncio.ensure_future(self._call(args))
        if self.num_returns == 1:
            return answer
        return [asyncio.ensure_future(self._part(answer, index)) for index in range(self.num_returns)]

    async def _call(self, args: Sequence[Any]) -> Any:
        return await self.method(*[await arg if isinstance(arg, asyncio.Future) else arg for arg in args])

    async def _part(self, answer: Awaitable[Any], index: int) -> Any:
        values = await answer
        assert len(values) == self.num_returns
        return values[index]


class Handle:
    """An actor handle whose actor is an object of this process."""

    def __init__(self, actor: object) -> None:
        self.actor = actor

    def __getattr__(self, name: str) -> Method:
        return Method(getattr(self.actor, name))


def make_client(rule: str) -> tuple[BufferClient, BufferActor]:
    limits = AdmissionLimits(questions_per_update=1, total_updates=8, staleness_max=1, depth=0)
    plan = BufferPlan(rule=rule, group_size=4, run_seed=1, incarnation=0, limits=limits)
    actor = BufferActor(plan, GoldAnswers({}))
    handle: Any = Handle(actor)
    return BufferClient(handle), actor


async def no_statistics(samples: Any) -> bytes:
    raise AssertionError("the rule needs no token statistics")


async def test_a_question_goes_from_room_to_a_report() -> None:
    client, actor = make_client("majority_vote")
    assert await client.room() == 1
    assert await client.admit([ASKED, AskedId(question_id="r", epoch=0)]) == 1
    assert (await client.progress()).missing == ("q/e0",)
    assert (await client.state({}))["pending"] == [("q", 0)]
    await actor.accept(encode(fake_group("q", ["1", "1", "2", "3"])))
    taken = await client.take(1, no_statistics)
    assert taken.num_samples == 4
    assert [s.advantage > 0 for s in decode_as(await taken.batch, TrainBatch).samples] == [True, True, False, False]
    report = await taken.report
    assert (report.update, report.metrics.scalars["reward/mean"], len(report.rows)) == (1, 0.5, 4)
    assert [span.lane for span in report.spans] == ["fake"]
    progress = await client.progress()
    assert (progress.num_generated, progress.num_ready, progress.updates_taken, progress.room) == (4, 1, 1, 0)
    await client.acknowledged("policy", 1)
    assert await client.room() == 1
    assert await client.answers_read() == {"reward": 0, "diagnostics": 1, "eval": 0}


async def test_statistics_are_asked_for_the_unscored_samples_where_the_rule_needs_them() -> None:
    client, actor = make_client("entropy")
    await client.admit([ASKED])
    await actor.accept(encode(fake_group("q", ["1", "1", "2", "3"])))

    async def token_statistics(samples: Awaitable[bytes]) -> bytes:
        unscored = decode_list(await samples, TrainingSample)
        return encode([TokenStatistics(id=s.id, self_certainty=0.0, entropy=float(i)) for i, s in enumerate(unscored)])

    taken = await client.take(1, token_statistics)
    batch = decode_as(await taken.batch, TrainBatch)
    assert [round(sample.advantage, 3) for sample in batch.samples] == [1.162, 0.387, -0.387, -1.162]
    assert (await taken.report).metrics.scalars["reward/mean"] == -1.5


async def test_the_actor_refuses_what_is_not_a_group_of_completions() -> None:
    _, actor = make_client("majority_vote")
    group = fake_group("q", ["1"] * 4)
    for message in (encode(group[0]), encode([*group, 1]), b"noise"):
        with pytest.raises(CodecError):
            await actor.accept(message)


async def test_the_death_of_the_buffer_is_an_error_of_the_run() -> None:
    class Dead:
        async def room(self) -> int:
            raise RayActorError

    handle: Any = Handle(Dead())
    with pytest.raises(BufferDiedError, match="the replay buffer died"):
        await BufferClient(handle).room()
