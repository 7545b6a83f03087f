"""What rules need is carried through the buffer: sizes of votes, bought labels, the initial model's answers, weights and offsets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from corewarding.dataflow.carriers import TokenStatistics
from corewarding.dataflow.ids import AskedId
from corewarding.dataflow.votes import InitialAnswers
from corewarding.learner.replay.admission import AdmissionLimits
from corewarding.learner.replay.buffer import ReplayBuffer
from corewarding.learner.replay.scoring import BufferPlan
from corewarding.questions.gold import GoldAnswers
from corewarding.rewards.rules.table import REWARD_RULES
from corewarding.rewards.settings import VoteSettings
from tests.fakes import fake_group

Q, R = (AskedId(question_id=name, epoch=0) for name in "qr")


def make_buffer(rule: str, *, staleness: int = 1, gold: dict[str, str] | None = None, **plan: Any) -> ReplayBuffer:
    teacher = 8 if REWARD_RULES[rule].labelled(plan.get("label_from")).needs_teacher else None
    limits = AdmissionLimits(
        questions_per_update=1, total_updates=8, depth=staleness, staleness_max=staleness, label_max=teacher
    )
    made = BufferPlan(rule=rule, run_seed=1, incarnation=0, limits=limits, **{"group_size": 4} | plan)
    return ReplayBuffer(made, GoldAnswers(gold or {}))


def statistics(buffer: ReplayBuffer, update: int) -> list[TokenStatistics] | None:
    if not buffer.needs_statistics:
        return None
    return [
        TokenStatistics(id=s.id, self_certainty=1.0 + n, entropy=0.5) for n, s in enumerate(buffer.unscored(update))
    ]


async def test_a_group_votes_in_full_and_trains_its_first_completions() -> None:
    buffer = make_buffer("majority_vote", group_size=2, vote_size=6)
    await buffer.admit([Q])
    await buffer.accept(fake_group("q", ["1", "2", "2", "2", "1", None]))
    await buffer.take(1)
    batch = buffer.batch(1)
    assert [sample.id.sample_index for sample in batch.samples] == [0, 1]
    assert [sample.advantage > 0 for sample in batch.samples] == [False, True]  # 2 was elected by all six
    scalars = buffer.report(1).metrics.scalars
    assert (scalars["ledger/num_trained"], scalars["ledger/num_voted_only"]) == (2, 4)
    with pytest.raises(AssertionError, match="are not one group"):
        await make_buffer("majority_vote", group_size=2, vote_size=6).accept(fake_group("q", ["1", "2"]))


async def test_the_teacher_votes_in_full_and_the_policy_is_sampled_in_part() -> None:
    buffer = make_buffer("co_rewarding_ii", group_size=2, vote_size=4)
    await buffer.admit([Q])
    await buffer.accept(fake_group("q", ["1", "2"]))
    await buffer.accept(fake_group("q", ["2", "1", "2", "2"], source="teacher"))
    await buffer.take(1)
    assert [sample.advantage > 0 for sample in buffer.batch(1).samples] == [False, True]


async def test_a_bought_label_is_counted_in_labels_read_and_other_questions_stay_label_free() -> None:
    buffer = make_buffer("majority_vote", gold={"q": "1", "r": "1"}, known=("q",))
    for update, asked in enumerate((Q, R), start=1):
        await buffer.admit([asked])
        await buffer.accept(fake_group(asked.question_id, ["1", "2", "2", "2"], version=update - 1))
        await buffer.take(update)
        right = [sample.advantage > 0 for sample in buffer.batch(update).samples]
        assert right == ([True, False, False, False] if asked == Q else [False, True, True, True])
        await buffer.acknowledged("policy", update)
        assert buffer.answers_read()["reward"] == 1


async def test_restrain_weighs_the_loss_by_the_initial_models_agreement() -> None:
    buffer = make_buffer("restrain")
    buffer.know_initial([InitialAnswers(question_id="q", view="original", answers=("7", "7", "7.0", "7"))])
    await buffer.admit([Q])
    await buffer.accept(fake_group("q", ["1", "1", "1", "2"]))
    await buffer.take(1)
    batch = buffer.batch(1)
    assert [sample.weight for sample in batch.samples] == [1.0] * 4
    assert buffer.report(1).metrics.scalars["reward/weight_mean"] == 1.0
    await buffer.acknowledged("policy", 1)
    await buffer.admit([R])
    with pytest.raises(ValueError, match="needs the initial model's answers to question r"):
        await buffer.accept(fake_group("r", ["1", "1", "1", "2"]))


async def test_a_penalised_question_has_negative_advantages_alone() -> None:
    buffer = make_buffer("restrain", skip_zero_advantage=True)
    buffer.know_initial([InitialAnswers(question_id="q", view="original", answers=("7", None))])
    await buffer.admit([Q])
    await buffer.accept(fake_group("q", ["1", "1", "3", "2"]))
    await buffer.take(1)
    batch = buffer.batch(1)
    assert [sample.advantage for sample in batch.samples] == [-1.0] * 4
    assert batch.samples[0].weight == pytest.approx(np.exp(-0.5))  # share 1/2
    assert buffer.report(1).metrics.scalars["reward/penalised_frac"] == 1.0


@pytest.mark.parametrize(("on_abstain", "num"), [("zero", 4), ("mask", 0)])
async def test_a_group_whose_label_abstained_is_kept_or_left_out(on_abstain: Any, num: int) -> None:
    buffer = make_buffer("majority_vote", vote=VoteSettings(min_share=0.9, on_abstain=on_abstain))
    await buffer.admit([Q])
    await buffer.accept(fake_group("q", ["1", "1", "3", "2"]))
    await buffer.take(1)
    assert len(buffer.batch(1).samples) == num


@pytest.mark.parametrize("staleness", [0, 4])
@pytest.mark.parametrize("rule", REWARD_RULES)
async def test_every_rule_makes_batches_with_and_without_staleness(rule: str, staleness: int) -> None:
    buffer = make_buffer(rule, staleness=staleness, gold={"q": "1"})
    buffer.know_initial(
        InitialAnswers(question_id="q", view=view, answers=("1", "1")) for view in ("original", "rephrased")
    )
    for update in range(1, 6):
        asked = AskedId(question_id="q", epoch=update)
        assert await buffer.admit([asked]) == 1
        version = max(0, update - 1 - staleness)
        for view, source in REWARD_RULES[rule].groups:
            group = fake_group("q", ["1", "2", "1", None], view=view, source=source, epoch=update, version=version)
            await buffer.accept(group)
        await buffer.take(update)
        batch = buffer.batch(update, statistics(buffer, update))
        assert len(batch.samples) == 4 * len(REWARD_RULES[rule].trained)
        assert all(np.isfinite(sample.advantage) for sample in batch.samples)
        if staleness == 0:
            await buffer.acknowledged("policy", update)
            await buffer.acknowledged("teacher", update)
