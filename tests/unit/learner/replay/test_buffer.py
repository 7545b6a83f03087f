"""The replay buffer: ready questions, the ledger, rewards by rule, and waiting for questions that would get too old."""

import asyncio
from typing import Any

import numpy as np
import pytest

from corewarding.dataflow.carriers import TokenStatistics, TrainBatch, UpdateReport
from corewarding.dataflow.ids import AskedId
from corewarding.dataflow.spans import Span
from corewarding.learner.replay.admission import AdmissionLimits
from corewarding.learner.replay.buffer import ReplayBuffer
from corewarding.learner.replay.scoring import BufferPlan
from corewarding.questions.gold import GoldAnswers
from corewarding.rewards.rules.table import REWARD_RULES
from tests.fakes import fake_group


def make_buffer(
    rule: str = "co_rewarding_ii",
    *,
    gold: dict[str, str] | None = None,
    questions: int = 1,
    depth: int = 1,
    group_size: int = 4,
    state: dict[str, Any] | None = None,
    limits: dict[str, Any] | None = None,
    **plan: Any,
) -> ReplayBuffer:
    teacher = 8 if REWARD_RULES[rule].needs_teacher else None
    defaults: dict[str, Any] = {"staleness_max": max(depth, 1)}
    admission = AdmissionLimits(
        questions_per_update=questions, total_updates=8, depth=depth, label_max=teacher, **defaults | (limits or {})
    )
    buffer_plan = BufferPlan(rule=rule, group_size=group_size, run_seed=1, incarnation=0, limits=admission, **plan)
    return ReplayBuffer(buffer_plan, GoldAnswers(gold or {}), state)


def asked(*question_ids: str) -> list[AskedId]:
    return [AskedId(question_id=question_id, epoch=0) for question_id in question_ids]


def zero_causes(report: UpdateReport) -> dict[str, float]:
    prefix = "advantage/num_zero_"
    return {key.removeprefix(prefix): num for key, num in report.metrics.scalars.items() if key.startswith(prefix)}


async def take(buffer: ReplayBuffer, update: int) -> TrainBatch:
    """The batch of an update whose rule needs no statistics."""
    await buffer.take(update)
    return buffer.batch(update)


async def test_rule_two_trains_the_policy_group_by_the_teachers_vote_and_balances_the_ledger() -> None:
    buffer = make_buffer(gold={"q": "7"})
    assert await buffer.admit(asked("q", "r", "s")) == 2  # this update's and the next one's
    await buffer.accept(fake_group("q", ["7", "9", None, "7"]))
    assert buffer.progress().num_ready == 0
    await buffer.accept(fake_group("q", ["7", "7", "9", None], source="teacher"))
    batch = await take(buffer, 1)
    # rewards 1, 0, 0, 1: mean 1/2, unbiased std sqrt(1/3)
    a = 0.5 / (np.sqrt(1 / 3) + 1e-6)
    np.testing.assert_allclose([s.advantage for s in batch.samples], [a, -a, -a, a], rtol=1e-5)
    report = buffer.report(1)
    assert report.update == 1
    assert sorted(report.spans, key=lambda span: span.name) == [
        Span("fake", "sample q/e0/original/policy", 2.0, 3.0),
        Span("fake", "sample q/e0/original/teacher", 2.0, 3.0),
    ]
    scalars, rows = report.metrics.scalars, report.rows
    assert scalars["ledger/num_generated"] == 8
    assert scalars["ledger/num_trained"] == 4
    assert scalars["ledger/num_voted_only"] == 4
    assert scalars["label/num_read_by_rule"] == 0
    assert len(rows) == 8
    assert rows[0]["votes"] == {"7": 2, "9": 1}
    assert [row.get("reward") for row in rows if row["source"] == "policy"] == [1, 0, 0, 1]


async def test_a_group_that_comes_again_is_dropped_as_duplicate_before_and_after_training() -> None:
    buffer = make_buffer("majority_vote")
    await buffer.admit(asked("q"))
    group = fake_group("q", ["1", "1", "2", "3"])
    await buffer.accept(group)
    await buffer.accept(group)
    await take(buffer, 1)
    await buffer.accept(group)
    scalars = buffer.report(1).metrics.scalars
    assert scalars["dropped/num_duplicate"] == 4
    assert buffer.progress().dropped == {"duplicate": 8}


async def test_groups_of_a_lost_incarnation_or_never_asked_are_dropped_by_name() -> None:
    buffer = make_buffer("majority_vote")
    await buffer.admit(asked("q"))
    await buffer.accept(fake_group("q", ["1"] * 4, incarnation=3))
    await buffer.accept(fake_group("x", ["1"] * 4))
    await buffer.accept(fake_group("q", ["1"] * 4, view="rephrased"))
    assert buffer.progress().dropped == {"lost_incarnation": 4, "unasked": 8}
    assert buffer.num_waiting == 0


async def test_the_learner_waits_for_a_question_that_would_otherwise_get_too_old() -> None:
    buffer = make_buffer("majority_vote", depth=1)
    await buffer.admit(asked("slow", "fast"))
    await buffer.accept(fake_group("fast", ["1", "1", "2", "3"]))
    await take(buffer, 1)
    await buffer.acknowledged("policy", 1)
    await buffer.admit(asked("new"))
    await buffer.accept(fake_group("new", ["1", "1", "2", "3"], version=1))
    taking = asyncio.create_task(take(buffer, 2))
    await asyncio.sleep(0.01)
    assert not taking.done()  # without `slow`, update 3 would train on tokens two updates old
    await buffer.accept(fake_group("slow", ["1", "1", "2", "3"], version=0))
    assert {s.id.question_id for s in (await taking).samples} == {"slow"}


async def test_room_waits_for_a_publication() -> None:
    buffer = make_buffer("majority_vote", depth=0, questions=2)
    assert await buffer.room() == 2
    await buffer.admit(asked("a", "b"))
    waiting = asyncio.create_task(buffer.room())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    for name in "ab":
        await buffer.accept(fake_group(name, ["1", "1", "2", "3"]))
    await take(buffer, 1)
    await buffer.acknowledged("policy", 1)
    assert await waiting == 2


@pytest.mark.parametrize("rule", ["self_certainty", "entropy"])
async def test_confidence_rules_are_scored_with_the_learners_token_statistics(rule: str) -> None:
    buffer = make_buffer(rule)
    await buffer.admit(asked("q"))
    await buffer.accept(fake_group("q", ["1", "1", "2", "3"]))
    assert buffer.needs_statistics
    await buffer.take(1)
    unscored = buffer.unscored(1)
    assert buffer.num_waiting == 4  # taken, and not a batch yet
    buffer.state()  # the ledger is balanced here too
    assert [s.advantage for s in unscored] == [0, 0, 0, 0]
    statistics = [TokenStatistics(id=s.id, self_certainty=float(i), entropy=float(-i)) for i, s in enumerate(unscored)]
    batch = buffer.batch(1, statistics)
    assert buffer.num_waiting == 0
    assert [round(s.advantage, 3) for s in batch.samples] == [-1.162, -0.387, 0.387, 1.162]


async def test_skipped_and_masked_completions_stay_in_the_ledger() -> None:
    buffer = make_buffer("majority_vote", questions=2, skip_zero_advantage=True)
    await buffer.admit(asked("a", "b"))
    await buffer.accept(fake_group("a", ["1", "1", "1", "1"]))
    await buffer.accept(fake_group("b", ["1", "1", "2", "3"]))
    batch = await take(buffer, 1)
    assert {s.id.question_id for s in batch.samples} == {"b"}
    assert buffer.report(1).metrics.scalars["dropped/num_zero_advantage"] == 4


async def test_a_restored_buffer_goes_on_and_counts_what_was_waiting_as_lost() -> None:
    buffer = make_buffer("majority_vote")
    await buffer.admit(asked("q", "r"))
    for name in "qr":
        await buffer.accept(fake_group(name, ["1", "1", "2", "3"]))
    await take(buffer, 1)
    state = buffer.state()
    assert state["pending"] == [("r", 0)]
    again = make_buffer("majority_vote", state=state)
    await again.admit(asked("r"))
    await again.accept(fake_group("r", ["1", "1", "2", "3"], version=1))
    await take(again, 2)
    scalars = again.report(2).metrics.scalars
    assert scalars["ledger/num_generated"] == 12
    assert scalars["dropped/num_lost_incarnation"] == 4
    assert scalars["ledger/num_trained"] == 8


async def test_drop_counts_the_question_and_its_lengths_and_makes_room_for_one() -> None:
    buffer = make_buffer("majority_vote", depth=2, limits={"staleness_max": 1, "on_exceed": "drop"})
    assert await buffer.admit(asked(*"abc")) == 3
    for question, update in (("b", 1), ("c", 2)):
        await buffer.accept(fake_group(question, ["1", "1", "2", "3"]))
        await take(buffer, update)
    await buffer.accept(fake_group("a", ["1"] * 4, length=9))
    progress = buffer.progress()
    assert (progress.dropped, progress.room) == ({"stale_policy": 4}, 1)
    await buffer.accept(fake_group("a", ["1"] * 4, length=9))  # sent again
    assert buffer.progress().dropped == {"stale_policy": 4, "duplicate": 4}
    await buffer.admit(asked("d"))
    await buffer.acknowledged("policy", 2)
    await buffer.accept(fake_group("d", ["1", "1", "2", "3"], version=2))
    await take(buffer, 3)
    metrics = buffer.report(3).metrics
    assert metrics.histograms["length/dropped_tokens"].tolist() == [9, 9, 9, 9]
    assert metrics.histograms["length/trained_tokens"].tolist() == [3, 3, 3, 3]
    assert metrics.scalars["dropped/num_stale_policy"] == 4


async def test_withhold_masks_each_completion_by_its_own_age_and_lets_it_vote() -> None:
    buffer = make_buffer("majority_vote", depth=2, limits={"staleness_max": 0, "on_exceed": "withhold"})
    await buffer.admit(asked("a", "b"))
    await buffer.accept(fake_group("a", ["1", "1", "2", "3"]))
    await take(buffer, 1)
    await buffer.acknowledged("policy", 1)
    old, new = fake_group("b", ["1", "1", "2", "3"]), fake_group("b", ["1", "1", "2", "3"], version=1)
    await buffer.accept([*old[:3], new[3]])  # the last one was sampled after the swap
    batch = await take(buffer, 2)
    assert [bool(s.loss_mask.any()) for s in batch.samples] == [False, False, False, True]
    assert [s.advantage > 0 for s in batch.samples] == [True, True, False, False]  # the old ones elected "1"
    metrics = buffer.report(2).metrics
    assert metrics.scalars["ledger/num_withheld"] == 3
    assert metrics.scalars["staleness/max"] == 0
    assert metrics.histograms["length/withheld_tokens"].size == 3


async def test_staleness_has_two_parts_in_flight_and_in_the_buffer() -> None:
    buffer = make_buffer("majority_vote", depth=3)
    await buffer.admit(asked(*"abcd"))
    for question, update in (("a", 1), ("b", 2)):
        await buffer.accept(fake_group(question, ["1", "1", "2", "3"]))
        await buffer.acknowledged("policy", update)
        if update == 1:
            await buffer.accept(fake_group("c", ["1", "1", "2", "3"]))  # ready before any update
        await take(buffer, update)
    await buffer.accept(fake_group("d", ["1", "1", "2", "3"]))  # ready after two
    await take(buffer, 3)
    await take(buffer, 4)
    scalars = buffer.report(4).metrics.scalars
    assert (scalars["staleness/question_mean"], scalars["staleness/in_flight_mean"]) == (3, 2)
    assert scalars["staleness/in_buffer_mean"] == 1


async def test_each_report_is_of_its_own_update_however_late_it_is_asked_for() -> None:
    buffer = make_buffer("majority_vote", depth=1)
    await buffer.admit(asked("a", "b"))
    await buffer.accept(fake_group("a", ["1", "1", "2", "3"]))
    await buffer.accept(fake_group("b", ["1", "1", "1", "1"]))
    await take(buffer, 1)
    await take(buffer, 2)
    second, first = buffer.report(2), buffer.report(1)
    assert {row["question"] for row in first.rows} == {"a"}
    assert {row["question"] for row in second.rows} == {"b"}
    assert [one.metrics.scalars["ledger/num_trained"] for one in (first, second)] == [4, 8]
    assert [one.metrics.scalars["reward/mean"] for one in (first, second)] == [0.5, 1.0]


async def test_groups_whose_advantages_are_all_zero_are_counted_by_cause() -> None:
    gold = {"right": "7", "wrong": "7", "mixed": "7", "easy": "7"}
    buffer = make_buffer("ground_truth", questions=4, depth=0, group_size=2, gold=gold)
    await buffer.admit(asked("right", "wrong", "mixed", "easy"))
    answers: dict[str, list[str | None]] = {
        "right": ["7", "7"],
        "wrong": ["8", None],
        "mixed": ["7", "8"],
        "easy": ["7", "7"],
    }
    for question, group in answers.items():
        await buffer.accept(fake_group(question, group))
    await take(buffer, 1)
    assert zero_causes(buffer.report(1)) == {"all_right": 2, "all_wrong": 1, "abstained": 0, "equal": 0}


async def test_a_vote_that_abstains_and_rewards_without_a_label_are_counted_too() -> None:
    voting = make_buffer("majority_vote", group_size=2)
    await voting.admit(asked("q"))
    await voting.accept(fake_group("q", [None, None]))  # nobody votes
    await take(voting, 1)
    assert zero_causes(voting.report(1)) == {"all_right": 0, "all_wrong": 0, "abstained": 1, "equal": 0}
    confident = make_buffer("entropy", group_size=2)
    await confident.admit(asked("q"))
    await confident.accept(fake_group("q", ["1", "2"]))
    await confident.take(1)
    confident.batch(1, [TokenStatistics(id=s.id, self_certainty=1.0, entropy=2.0) for s in confident.unscored(1)])
    assert zero_causes(confident.report(1)) == {"all_right": 0, "all_wrong": 0, "abstained": 0, "equal": 1}


async def test_a_question_that_cannot_be_sampled_is_given_up_once_and_another_starts() -> None:
    buffer = make_buffer(depth=0)
    assert await buffer.admit(asked("bad", "good")) == 1
    await buffer.accept(fake_group("bad", ["7"] * 4, source="teacher"))
    waiting = asyncio.create_task(buffer.room())
    await asyncio.sleep(0)
    assert await buffer.give_up(asked("bad")[0])
    assert await waiting == 1
    assert not await buffer.give_up(asked("bad")[0])
    await buffer.accept(fake_group("bad", ["7"] * 4))  # its other group, sampled meanwhile
    assert buffer.progress().dropped == {"failed_task": 4, "duplicate": 4}
    assert await buffer.admit(asked("good")) == 1
    for source in ("policy", "teacher"):
        await buffer.accept(fake_group("good", ["7", "7", "9", None], source=source))
    assert {sample.id.group.asked.question_id for sample in (await take(buffer, 1)).samples} == {"good"}
    scalars = buffer.report(1).metrics.scalars
    assert scalars["ledger/num_failed_questions"] == 1
    assert scalars["dropped/num_failed_task"] == 4
    assert buffer.state()["ledger"]["failed_questions"] == 1
