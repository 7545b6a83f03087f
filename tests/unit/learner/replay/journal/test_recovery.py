"""A buffer that comes back from its journal is the buffer that died: after any inputs, at any moment, for every kind of rule."""

from functools import partial
from pathlib import Path

import pytest

from corewarding.dataflow.carriers import BufferProgress, TrainBatch
from corewarding.dataflow.codec import decode_as, encode
from corewarding.learner.replay.journal.history import History
from corewarding.learner.replay.journal.journal import records
from corewarding.learner.replay.journal.records import Arrived, Evicted, Refused, Scored, Start, Updated
from corewarding.learner.replay.journal.segments import JournalError
from tests.unit.learner.replay.journal.world import LIMITS, World, plan_of, start_of

WRITERS = [
    "corewarding.learner.replay.actor",
    "corewarding.learner.replay.journal.journal",
    "corewarding.learner.replay.journal.records",
    "tests.unit.learner.replay.journal.world",
]
"""The modules that encode what a journal holds."""


@pytest.mark.parametrize("on_exceed", LIMITS)
@pytest.mark.parametrize("rule", ["majority_vote", "co_rewarding_ii", "entropy", "ground_truth"])
async def test_it_is_the_same_after_every_input(rule: str, on_exceed: str, tmp_path: Path) -> None:
    world = World(plan_of(rule, on_exceed), tmp_path, seed=7)
    for _ in range(120):
        await world.step()
        if world.draws.random() < 0.2:
            before, progress = world.snapshot(), decode_as(await world.actor.progress(), BufferProgress)
            world.kill()
            now = decode_as(await world.actor.progress(), BufferProgress)
            (state, groups), (state_before, groups_before) = world.snapshot(), before
            assert state == state_before
            assert encode(groups) == encode(groups_before)
            assert now.came_back.endswith("s)")
            assert (now.num_generated, now.missing, now.dropped) == (
                progress.num_generated,
                progress.missing,
                progress.dropped,
            )
    assert world.updates >= 3


async def test_a_run_with_deaths_trains_what_a_run_without_them_trains(tmp_path: Path) -> None:
    worlds = [World(plan_of("co_rewarding_ii"), tmp_path / str(deaths), seed=3) for deaths in (0, 1)]
    for _ in range(80):
        for deaths, world in enumerate(worlds):
            world.draws.seed(f"{_}")
            await world.step()
            if deaths:
                world.kill()
    assert worlds[0].batches
    assert worlds[0].batches == worlds[1].batches


async def test_the_journal_says_what_came_of_every_completion(tmp_path: Path) -> None:
    world = World(plan_of("majority_vote", "drop"), tmp_path, seed=8)
    for _ in range(300):
        await world.step()
    found = [record for _, record in records(tmp_path)]
    arrived = sum(isinstance(record, Arrived) for record in found)
    progress = decode_as(await world.actor.progress(), BufferProgress)
    assert progress.num_generated == 4 * arrived
    refused = sum(4 for record in found if isinstance(record, Refused))
    evicted = sum(4 for record in found if isinstance(record, Evicted))
    assert evicted > 0
    assert evicted == sum(num for reason, num in progress.dropped.items() if reason.startswith("stale"))
    assert refused == sum(progress.dropped.get(reason, 0) for reason in ("duplicate", "unasked", "lost_incarnation"))
    scored = [record for record in found if isinstance(record, Scored)]
    batches = [decode_as(batch, TrainBatch) for batch in world.batches]
    assert [one.samples for one in scored] == [tuple(sample.id for sample in batch.samples) for batch in batches]
    assert [record.update for record in found if isinstance(record, Updated)] == list(range(1, world.updates + 1))


async def test_another_rule_than_the_journals_is_refused(tmp_path: Path) -> None:
    world = World(plan_of("majority_vote"), tmp_path, seed=1, saves=False)
    while world.updates < 2:
        await world.step()
    world.plan = plan_of("majority_vote", normalize="none")
    with pytest.raises(JournalError, match="the reward rule or its settings have changed"):
        world.kill()


async def test_a_journal_whose_messages_hold_each_carrier_by_itself_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the first version wrote them: the batches and their digests are the same."""
    with monkeypatch.context() as patched:
        for module in WRITERS:
            patched.setattr(f"{module}.encode", partial(encode, columns=False))
        world = World(plan_of("co_rewarding_ii", "drop"), tmp_path, seed=11)
        while world.updates < 4:
            await world.step()
    batches = [decode_as(batch, TrainBatch) for batch in world.batches]
    assert [encode(past.batch) for past in History.of(tmp_path).updates(0)] == [encode(batch) for batch in batches]
    assert world.batches != [encode(batch) for batch in batches]
    world.kill()
    assert decode_as(await world.actor.progress(), BufferProgress).came_back
    while world.updates < 6:
        await world.step()
    assert len(list(History.of(tmp_path).updates(0))) == 6


async def test_a_new_start_begins_from_the_checkpoint_or_goes_on(tmp_path: Path) -> None:
    world = World(plan_of("majority_vote"), tmp_path, seed=5)
    while world.updates < 3:
        await world.step()
    before = world.snapshot()
    goes_on = world.start(start_of("two", goes_on=True, updates=3))
    assert encode(goes_on.buffer.snapshot()) == encode(before)
    assert decode_as(await goes_on.progress(), BufferProgress).came_back == ""
    afresh = world.start(start_of("three", incarnation=1))
    assert decode_as(await afresh.progress(), BufferProgress).num_generated == 0
    starts = [record.start for _, record in records(tmp_path) if isinstance(record, Start)]
    assert list(dict.fromkeys(starts)) == ["one", "two", "three"]


async def test_every_batch_comes_back_exactly_also_after_a_start_that_makes_updates_again(tmp_path: Path) -> None:
    world = World(plan_of("co_rewarding_ii", "drop"), tmp_path, seed=11)
    while world.updates < 4:
        await world.step()
    history = History.of(tmp_path)
    assert [encode(past.batch) for past in history.updates(0)] == world.batches
    assert [made.digest for made in history.made.values()] == [f"digest {k}" for k in range(1, 5)]
    assert [past.batch.update for past in history.updates(1, until=3)] == [2, 3]
    again = World(world.plan, tmp_path, seed=12, start=start_of("two", updates=0, incarnation=1))
    while again.updates < 2:
        await again.step()
    history = History.of(tmp_path)
    assert [start.start for start in history.starts] == ["one", "two"]
    assert [encode(past.batch) for past in history.updates(0)] == again.batches
    assert again.batches[0] != world.batches[0]


async def test_a_journal_that_begins_later_names_the_first_update_that_is_missing(tmp_path: Path) -> None:
    world = World(plan_of("majority_vote"), tmp_path, seed=2)
    while world.updates < 6:
        await world.step()
    await world.actor.keep_from((await world.actor.state({}))["segment"])
    history = History.of(tmp_path)
    with pytest.raises(JournalError, match="does not hold update 1"):
        list(history.updates(0))
