"""`corewarding journal RUN`: every completion has one line, and the tally is that of the buffer's own ledger."""

import asyncio
import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from corewarding.dataflow.carriers import TrainBatch
from corewarding.dataflow.codec import decode_as
from corewarding.launch.report.journal.lines import journal_lines
from corewarding.launch.report.journal.selection import Selection
from corewarding.learner.replay.journal.segments import JournalError, segments
from tests.unit.learner.replay.journal.world import LIMITS, World, plan_of, start_of

Rows = list[dict[str, Any]]


def rows_of(folder: Path, **options: Any) -> Rows:
    return [json.loads(line) for line in journal_lines(folder, as_json=True, **options)]


def of_kind(rows: Rows, kind: str) -> Rows:
    return [row for row in rows if row["kind"] == kind]


async def ledger_of(world: World) -> dict[str, Any]:
    while (found := world.snapshot()) is None:
        await world.step()
    assert isinstance(found, tuple)
    ledger: dict[str, Any] = found[0]["ledger"]
    return ledger


def num_waiting(ledger: dict[str, Any]) -> int:
    left = [ledger[name] for name in ("trained", "voted_only", "withheld")]
    return int(ledger["generated"] - sum(left) - sum(ledger["dropped"].values()))


def assert_adds_up(rows: Rows, ledger: dict[str, Any], *, unlisted: int = 0) -> None:
    tally = rows[-1]
    left = tally["trained"] + tally["voted"] + tally["withheld"] + sum(tally["dropped"].values())
    assert tally["generated"] == left + tally["waiting"]
    assert (tally["generated"], tally["trained"], tally["voted"], tally["withheld"]) == tuple(
        ledger[name] for name in ("generated", "trained", "voted_only", "withheld")
    )
    assert tally["dropped"] == {reason: num for reason, num in ledger["dropped"].items() if num}
    assert tally["unlisted"] == unlisted
    if not unlisted:
        listed = [row for row in of_kind(rows, "completion") if not row["made_again"]]
        fates = Counter(row["fate"] for row in listed)
        assert fates["dropped"] == sum(tally["dropped"].values())
        assert all(fates[fate] == tally[fate] for fate in ("trained", "voted", "withheld", "waiting"))
        assert Counter(row["reason"] for row in listed if row["reason"]) == Counter(tally["dropped"])


@pytest.mark.parametrize("on_exceed", LIMITS)
@pytest.mark.parametrize("rule", ["majority_vote", "co_rewarding_ii", "entropy"])
async def test_the_tally_is_the_ledgers(rule: str, on_exceed: str, tmp_path: Path) -> None:
    world = World(plan_of(rule, on_exceed, skip_zero_advantage=True), tmp_path, seed=7)
    for _ in range(150):
        await world.step()
        if world.draws.random() < 0.05:
            world.kill()
    assert world.updates >= 3
    ledger = await ledger_of(world)
    rows = rows_of(tmp_path)
    assert_adds_up(rows, ledger)
    assert ledger["dropped"]["duplicate"] > 0
    updates = [row["update"] for row in of_kind(rows, "completion") if row["fate"] == "trained"]
    assert updates == sorted(updates)
    assert set(updates) <= set(range(1, world.updates + 1))


async def test_each_completion_is_told_with_its_score(tmp_path: Path) -> None:
    world = World(plan_of("co_rewarding_ii"), tmp_path, seed=3)
    while world.updates < 3:
        await world.step()
    trained = {row["id"]: row for row in of_kind(rows_of(tmp_path), "completion") if row["update"] == 2}
    batch = decode_as(world.batches[1], TrainBatch)
    for sample in batch.samples:
        row = trained.pop(str(sample.id))
        assert row["fate"] == "trained"
        assert row["advantage"] == pytest.approx(sample.advantage)
        assert row["num_tokens"] == len(sample.token_ids)
        assert row["versions"] == [int(sample.token_versions[0]), int(sample.token_versions[-1])]
        assert row["reward"] == float(row["answer"] is not None and row["answer"] == row["label"])
    assert {(row["fate"], row["reward"]) for row in trained.values()} == {("voted", None)}


async def test_a_resume_from_a_checkpoint_makes_updates_again_and_loses_what_waited(tmp_path: Path) -> None:
    world = World(plan_of("majority_vote", "drop"), tmp_path, seed=5, saves=False)
    while world.updates < 3:
        await world.step()
    waiting = 0
    while not waiting:
        await world.admit()
        await world.accept()
        state = await world.actor.state({})
        waiting = num_waiting(state["ledger"])
    asked = world.asked
    while world.updates < 6:
        await world.step()
    plan = dataclasses.replace(world.plan, incarnation=1)
    start = start_of("two", updates=3, incarnation=1)
    again = World(plan, tmp_path, seed=6, start=start, state=state)
    again.asked = asked
    while again.updates < 5:
        await again.step()
    ledger = await ledger_of(again)
    rows = rows_of(tmp_path)
    assert [(row["goes_on"], row["after_update"], row["again"]) for row in of_kind(rows, "start")] == [
        (False, 0, None),
        (False, 3, [4, 6]),
    ]
    assert_adds_up(rows, ledger)
    assert ledger["dropped"]["lost_incarnation"] == waiting
    everything = rows_of(tmp_path, selection=Selection(with_made_again=True))
    forgotten = [row for row in of_kind(everything, "completion") if row["made_again"]]
    assert {row["update"] for row in forgotten if row["update"]} == {4, 5, 6}
    assert [row for row in of_kind(everything, "completion") if not row["made_again"]] == of_kind(rows, "completion")
    questions = rows_of(tmp_path, by="question")
    ids = [row["id"] for row in of_kind(questions, "question")]
    assert len(ids) == len(set(ids))
    third = World(plan, tmp_path, seed=9, start=start_of("three", updates=3, incarnation=2), state=state)
    assert_adds_up(rows_of(tmp_path), await ledger_of(third))


@pytest.mark.parametrize("seed", range(6))
async def test_a_start_that_forgets_an_update_that_was_taken_and_not_scored(seed: int, tmp_path: Path) -> None:
    world = World(plan_of("entropy", "drop"), tmp_path, seed=seed, saves=False)
    while world.updates < 2:
        await world.step()
    taking = asyncio.ensure_future(world.actor.take(3))
    while not taking.done():
        await world.admit()
        await world.accept()
        await world.acknowledge()
        await asyncio.sleep(0)
    state = await world.actor.state({})
    assert state["updates_done"] == 2
    plan = dataclasses.replace(world.plan, incarnation=1)
    resumed = World(plan, tmp_path, seed=seed, start=start_of("two", updates=2, incarnation=1), state=state)
    resumed.asked = world.asked
    while resumed.updates < 4:
        await resumed.step()
    rows = rows_of(tmp_path)
    assert [row["again"] for row in of_kind(rows, "start")] == [None, None]
    assert_adds_up(rows, await ledger_of(resumed))


async def test_a_start_that_goes_on_changes_nothing(tmp_path: Path) -> None:
    world = World(plan_of("majority_vote"), tmp_path, seed=5)
    while world.updates < 3:
        await world.step()
    ledger = await ledger_of(world)
    before = rows_of(tmp_path)
    world.own_start = start_of("two", goes_on=True, updates=3)
    world.kill()
    after = rows_of(tmp_path)
    assert [row["again"] for row in of_kind(after, "start")] == [None, None]
    assert after[2:] == before[1:]
    assert_adds_up(after, ledger)


async def test_a_journal_that_begins_later_says_how_much_it_does_not_list(tmp_path: Path) -> None:
    world = World(plan_of("majority_vote"), tmp_path, seed=2)
    while world.updates < 6:
        await world.step()
    state = await world.actor.state({})
    left = state["ledger"]["generated"] - len(
        of_kind(rows_of(tmp_path, selection=Selection(fate="waiting")), "completion")
    )
    await world.actor.keep_from(state["segment"])
    while world.updates < 8:
        await world.step()
    assert_adds_up(rows_of(tmp_path), await ledger_of(world), unlisted=left)
    *_, last = journal_lines(tmp_path)
    assert last.endswith(f"; {left} of them left before the journal begins")


async def test_a_segment_that_is_missing_is_named(tmp_path: Path) -> None:
    world = World(plan_of("majority_vote"), tmp_path, seed=4)
    while world.updates < 8:
        await world.step()
    _, missing, *after = segments(tmp_path)
    assert after
    missing.unlink()
    with pytest.raises(JournalError, match=r"lacks records before byte|does not hold|which was not taken"):
        rows_of(tmp_path)


async def test_lines_are_chosen_and_limited_and_the_tally_stays(tmp_path: Path) -> None:
    world = World(plan_of("co_rewarding_ii", "drop"), tmp_path, seed=11)
    while world.updates < 4:
        await world.step()
    rows = rows_of(tmp_path)
    completions = of_kind(rows, "completion")
    name = completions[0]["id"].split("/")[0]
    for selection, fits in {
        Selection(fate="dropped"): lambda row: row["fate"] == "dropped",
        Selection(update=2): lambda row: row["update"] == 2,
        Selection(source="teacher"): lambda row: "/teacher/" in row["id"],
        Selection(question=name): lambda row: row["id"].startswith(f"{name}/"),
        Selection(question=f"{name}/e0", fate="trained"): lambda row: (
            row["id"].startswith(f"{name}/") and row["fate"] == "trained"
        ),
    }.items():
        found = rows_of(tmp_path, selection=selection)
        assert of_kind(found, "completion") == [row for row in completions if fits(row)], selection
        assert found[-1] == rows[-1]
    limited = rows_of(tmp_path, limit=5)
    assert of_kind(limited, "completion") == completions[:5]
    assert limited[-2:] == [{"kind": "left_out", "num": len(completions) - 5}, rows[-1]]


async def test_a_line_per_question(tmp_path: Path) -> None:
    world = World(plan_of("co_rewarding_ii"), tmp_path, seed=11)
    while world.updates < 4:
        await world.step()
    rows, questions = rows_of(tmp_path), of_kind(rows_of(tmp_path, by="question"), "question")
    trained = [row for row in questions if row["fate"] == "trained"]
    assert Counter(row["update"] for row in trained) == dict.fromkeys(range(1, world.updates + 1), 2)
    for row in trained:
        assert row["groups"] == {"original/policy": 4, "original/teacher": 4}
        own = [
            one for one in of_kind(rows, "completion") if one["id"].startswith(row["id"]) and one["reward"] is not None
        ]
        assert row["reward"] == pytest.approx(sum(one["reward"] for one in own) / len(own))
        assert row["labels"] == list(dict.fromkeys(one["label"] for one in own if one["label"] is not None))
    assert len(questions) == len({row["id"] for row in questions})
    assert sum(sum(row["completions"].values()) for row in questions) == rows[-1]["generated"] - rows[-1][
        "dropped"
    ].get("duplicate", 0) - rows[-1]["dropped"].get("unasked", 0)
