"""The replay buffer: whole questions, the ledger, rewards by rule, and waiting for what would get too old."""

import asyncio

import numpy as np
import pytest

from corewarding.dataflow.carriers import TokenStatistics
from corewarding.dataflow.codec import decode, encode
from corewarding.learner.replay.admission import AdmissionLimits
from corewarding.learner.replay.buffer import BufferPlan, ReplayBuffer
from corewarding.questions.gold import GoldAnswers
from corewarding.rewards.rules.table import REWARD_RULES
from tests.fakes import fake_group


def make_buffer(
    rule="co_rewarding_ii", *, gold=None, questions=1, updates=8, depth=1, group_size=4, state=None, limits=None, **plan
):
    teacher = 8 if REWARD_RULES[rule].needs_teacher else None
    limits = AdmissionLimits(
        questions_per_update=questions,
        total_updates=updates,
        depth=depth,
        label_max=teacher,
        **({"staleness_max": max(depth, 1)} | (limits or {})),
    )
    whole = BufferPlan(rule=rule, group_size=group_size, run_seed=1, incarnation=0, limits=limits, **plan)
    return ReplayBuffer(whole, GoldAnswers(gold or {}), state)


async def test_rule_two_trains_the_policy_group_by_the_teachers_vote_and_balances_the_ledger():
    buffer = make_buffer(gold={"q": "7"})
    assert await buffer.admit([("q", 0), ("r", 0), ("s", 0)]) == 2  # this update's and the next one's
    await buffer.accept(encode(fake_group("q", ["7", "9", None, "7"])))
    assert (await buffer.progress())["num_whole"] == 0
    await buffer.accept(encode(fake_group("q", ["7", "7", "9", None], source="teacher")))
    batch = decode((await buffer.take(1))[1])
    # rewards 1, 0, 0, 1: mean 1/2, unbiased std sqrt(1/3)
    a = 0.5 / (np.sqrt(1 / 3) + 1e-6)
    np.testing.assert_allclose([s.advantage for s in batch.samples], [a, -a, -a, a], rtol=1e-5)
    metrics, rows, times = await buffer.report()
    assert sorted(times) == [
        ("fake", "q/e0/original/policy", 2.0, 3.0),
        ("fake", "q/e0/original/teacher", 2.0, 3.0),
    ]
    scalars = decode(metrics).scalars
    assert scalars["ledger/num_generated"] == 8
    assert scalars["ledger/num_trained"] == 4
    assert scalars["ledger/num_voted_only"] == 4
    assert scalars["label/num_read_by_rule"] == 0
    assert len(rows) == 8
    assert rows[0]["votes"] == {"7": 2, "9": 1}
    assert [row.get("reward") for row in rows if row["source"] == "policy"] == [1, 0, 0, 1]


async def test_a_group_that_comes_again_is_dropped_as_duplicate_before_and_after_training():
    buffer = make_buffer("majority_vote")
    await buffer.admit([("q", 0)])
    group = encode(fake_group("q", ["1", "1", "2", "3"]))
    await buffer.accept(group)
    await buffer.accept(group)
    await buffer.take(1)
    await buffer.accept(group)
    scalars = decode((await buffer.report())[0]).scalars
    assert scalars["dropped/num_duplicate"] == 4
    assert (await buffer.progress())["dropped"] == {"duplicate": 8}


async def test_groups_of_a_lost_incarnation_or_never_asked_are_dropped_by_name():
    buffer = make_buffer("majority_vote")
    await buffer.admit([("q", 0)])
    await buffer.accept(encode(fake_group("q", ["1"] * 4, incarnation=3)))
    await buffer.accept(encode(fake_group("x", ["1"] * 4)))
    await buffer.accept(encode(fake_group("q", ["1"] * 4, view="rephrased")))
    assert (await buffer.progress())["dropped"] == {"lost_incarnation": 4, "unasked": 8}
    assert buffer.num_waiting == 0


async def test_the_learner_waits_for_a_question_that_would_get_too_old():
    buffer = make_buffer("majority_vote", depth=1)
    await buffer.admit([("slow", 0), ("fast", 0)])
    await buffer.accept(encode(fake_group("fast", ["1", "1", "2", "3"])))
    await buffer.take(1)
    await buffer.publish("policy", 1)
    await buffer.admit([("new", 0)])
    await buffer.accept(encode(fake_group("new", ["1", "1", "2", "3"], version=1)))
    taking = asyncio.create_task(buffer.take(2))
    await asyncio.sleep(0.01)
    assert not taking.done()  # without `slow`, update 3 would train on tokens two updates old
    await buffer.accept(encode(fake_group("slow", ["1", "1", "2", "3"], version=0)))
    assert {s.id.question_id for s in decode((await taking)[1]).samples} == {"slow"}


async def test_room_waits_for_a_publication():
    buffer = make_buffer("majority_vote", depth=0, questions=2)
    assert await buffer.room() == 2
    await buffer.admit([("a", 0), ("b", 0)])
    waiting = asyncio.create_task(buffer.room())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    for name in "ab":
        await buffer.accept(encode(fake_group(name, ["1", "1", "2", "3"])))
    await buffer.take(1)
    await buffer.publish("policy", 1)
    assert await waiting == 2


@pytest.mark.parametrize("rule", ["self_certainty", "entropy"])
async def test_confidence_rules_are_scored_with_the_learners_statistics(rule):
    buffer = make_buffer(rule)
    await buffer.admit([("q", 0)])
    await buffer.accept(encode(fake_group("q", ["1", "1", "2", "3"])))
    unscored = decode((await buffer.take(1))[1])
    assert [s.advantage for s in unscored] == [0, 0, 0, 0]
    statistics = [TokenStatistics(id=s.id, self_certainty=float(i), entropy=float(-i)) for i, s in enumerate(unscored)]
    batch = decode((await buffer.score(encode(statistics)))[1])
    assert [round(s.advantage, 3) for s in batch.samples] == [-1.162, -0.387, 0.387, 1.162]


async def test_skipped_and_masked_completions_stay_in_the_ledger():
    buffer = make_buffer("majority_vote", questions=2, skip_zero_advantage=True)
    await buffer.admit([("a", 0), ("b", 0)])
    await buffer.accept(encode(fake_group("a", ["1", "1", "1", "1"])))
    await buffer.accept(encode(fake_group("b", ["1", "1", "2", "3"])))
    batch = decode((await buffer.take(1))[1])
    assert {s.id.question_id for s in batch.samples} == {"b"}
    assert decode((await buffer.report())[0]).scalars["dropped/num_zero_advantage"] == 4


async def test_a_restored_buffer_goes_on_and_counts_what_was_waiting_as_lost():
    buffer = make_buffer("majority_vote")
    await buffer.admit([("q", 0), ("r", 0)])
    for name in "qr":
        await buffer.accept(encode(fake_group(name, ["1", "1", "2", "3"])))
    await buffer.take(1)
    state = await buffer.state()
    assert state["pending"] == [("r", 0)]
    again = make_buffer("majority_vote", state=state)
    await again.admit([("r", 0)])
    await again.accept(encode(fake_group("r", ["1", "1", "2", "3"], version=1)))
    await again.take(2)
    scalars = decode((await again.report())[0]).scalars
    assert scalars["ledger/num_generated"] == 12
    assert scalars["dropped/num_lost_incarnation"] == 4
    assert scalars["ledger/num_trained"] == 8


async def test_drop_counts_the_question_and_its_lengths_and_makes_room_for_one():
    buffer = make_buffer("majority_vote", depth=2, limits={"staleness_max": 1, "on_exceed": "drop"})
    assert await buffer.admit([(q, 0) for q in "abc"]) == 3
    for question, update in (("b", 1), ("c", 2)):
        await buffer.accept(encode(fake_group(question, ["1", "1", "2", "3"])))
        await buffer.take(update)
    await buffer.accept(encode(fake_group("a", ["1"] * 4, length=9)))
    progress = await buffer.progress()
    assert (progress["dropped"], progress["room"]) == ({"stale_policy": 4}, 1)
    await buffer.accept(encode(fake_group("a", ["1"] * 4, length=9)))  # sent again
    assert (await buffer.progress())["dropped"] == {"stale_policy": 4, "duplicate": 4}
    await buffer.admit([("d", 0)])
    await buffer.publish("policy", 2)
    await buffer.accept(encode(fake_group("d", ["1", "1", "2", "3"], version=2)))
    await buffer.take(3)
    metrics = decode((await buffer.report())[0])
    assert metrics.histograms["length/dropped_tokens"].tolist() == [9, 9, 9, 9]
    assert metrics.histograms["length/trained_tokens"].tolist() == [3, 3, 3, 3]
    assert metrics.scalars["dropped/num_stale_policy"] == 4


async def test_withhold_masks_each_completion_by_its_own_age_and_lets_it_vote():
    buffer = make_buffer("majority_vote", depth=2, limits={"staleness_max": 0, "on_exceed": "withhold"})
    await buffer.admit([("a", 0), ("b", 0)])
    await buffer.accept(encode(fake_group("a", ["1", "1", "2", "3"])))
    await buffer.take(1)
    await buffer.publish("policy", 1)
    old, new = fake_group("b", ["1", "1", "2", "3"]), fake_group("b", ["1", "1", "2", "3"], version=1)
    await buffer.accept(encode([*old[:3], new[3]]))  # the last one was sampled after the swap
    batch = decode((await buffer.take(2))[1])
    assert [bool(s.loss_mask.any()) for s in batch.samples] == [False, False, False, True]
    assert [s.advantage > 0 for s in batch.samples] == [True, True, False, False]  # the old ones elected "1"
    metrics = decode((await buffer.report())[0])
    assert metrics.scalars["ledger/num_withheld"] == 3
    assert metrics.scalars["staleness/max"] == 0
    assert metrics.histograms["length/withheld_tokens"].size == 3


async def test_staleness_has_two_parts_in_flight_and_in_the_buffer():
    buffer = make_buffer("majority_vote", depth=3)
    await buffer.admit([(q, 0) for q in "abcd"])
    for question, update in (("a", 1), ("b", 2)):
        await buffer.accept(encode(fake_group(question, ["1", "1", "2", "3"])))
        await buffer.publish("policy", update)
        if update == 1:
            await buffer.accept(encode(fake_group("c", ["1", "1", "2", "3"])))  # whole before any update
        await buffer.take(update)
    await buffer.accept(encode(fake_group("d", ["1", "1", "2", "3"])))  # whole after two
    await buffer.take(3)
    await buffer.take(4)
    scalars = decode((await buffer.report())[0]).scalars
    assert (scalars["staleness/question_mean"], scalars["staleness/in_flight_mean"]) == (3, 2)
    assert scalars["staleness/in_buffer_mean"] == 1
