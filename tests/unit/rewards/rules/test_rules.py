"""The rules of the paper and its baselines on questions worked out by hand, and the laws they keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup, TokenStatistics
from corewarding.rewards.rules.table import REWARD_RULES, GroupKind, RuleContext
from tests.unit.rewards.rollouts import context_of, rollouts_of

ORIGINAL: GroupKind = ("original", "policy")
REPHRASED: GroupKind = ("rephrased", "policy")

# The four groups elect 1, 2, 3 and 4.
QUESTION = rollouts_of(
    {
        ("original", "policy"): ["1", "2", "1", "3", "4", None, "1.0", "2"],
        ("rephrased", "policy"): ["2", "2", "4", "1", "2.", "3", None, "4"],
        ("original", "teacher"): ["3", "3", None, "1"],
        ("rephrased", "teacher"): ["4", "4", "4", "2"],
    }
)
ELECTED_1 = [1, 0, 1, 0, 0, 0, 1, 0]


def score(name: str, rollouts: QuestionRollouts = QUESTION, context: RuleContext | None = None) -> list[ScoredGroup]:
    return REWARD_RULES[name].score(rollouts, context or context_of())


def rewards(scored: list[ScoredGroup]) -> dict[GroupKind, list[float]]:
    return {(g.id.view, g.id.source): g.rewards.tolist() for g in scored}


def test_the_table_has_the_rules_of_the_algorithm() -> None:
    assert {
        name: (r.kl_reference, r.kl_coef, r.needs_rephrased, r.needs_teacher) for name, r in REWARD_RULES.items()
    } == {
        "ground_truth": ("initial", 0.005, False, False),
        "majority_vote": ("initial", 0.005, False, False),
        "self_certainty": ("initial", 0.005, False, False),
        "entropy": ("initial", 0.005, False, False),
        "random": ("initial", 0.005, False, False),
        "trajectory_entropy": ("initial", 0.005, False, False),
        "trajectory_probability": ("initial", 0.005, False, False),
        "self_harmony": ("initial", 0.005, True, False),
        "empo": ("initial", 0.005, False, False),
        "evol_rl": ("initial", 0.005, False, False),
        "restrain": ("initial", 0.005, False, False),
        "co_rewarding_i": ("initial", 0.005, True, False),
        "co_rewarding_ii": ("teacher", 0.001, False, True),
        "co_rewarding_iii": ("teacher", 0.001, True, True),
    }
    assert {name: set(r.needs) for name, r in REWARD_RULES.items() if r.needs} == {
        "ground_truth": {"gold"},
        "self_certainty": {"token_statistics"},
        "entropy": {"token_statistics"},
        "trajectory_entropy": {"sampled_logprobs"},
        "trajectory_probability": {"sampled_logprobs"},
        "evol_rl": {"similarity"},
        "restrain": {"initial_answers"},
    }


@pytest.mark.parametrize("name", REWARD_RULES)
def test_a_rule_reads_only_the_groups_it_asks_for_and_returns_those_it_trains(name: str) -> None:
    rule = REWARD_RULES[name]
    asked = QuestionRollouts(
        asked=QUESTION.asked,
        groups={g: row for g, row in QUESTION.groups.items() if (g.view, g.source) in rule.groups},
    )
    statistics = {c.id: TokenStatistics(id=c.id, self_certainty=1.0, entropy=1.0) for c in asked.completions}
    scored = rule.score(asked, context_of(gold=lambda _: "1", statistics=statistics))
    assert [(g.id.view, g.id.source) for g in scored] == list(rule.trained)
    for group in scored:
        assert group.completions == asked.group(group.id.view, group.id.source)


def test_ground_truth_judges_by_the_data_sets_answer_and_reads_it_once() -> None:
    reads: list[str] = []

    def gold(question_id: str) -> str:
        reads.append(question_id)
        return "4/2"

    (scored,) = score("ground_truth", context=context_of(gold=gold))
    assert scored.rewards.tolist() == [0, 1, 0, 0, 0, 0, 0, 1]
    assert (scored.label, scored.vote, scored.abstained) == ("4/2", None, False)
    assert reads == ["q"]


def test_ground_truth_abstains_without_an_answer_and_refuses_to_run_without_answers() -> None:
    (scored,) = score("ground_truth", context=context_of(gold=lambda _: None))
    assert scored.abstained
    assert scored.rewards.tolist() == [0] * 8
    with pytest.raises(ValueError, match="needs gold answers"):
        score("ground_truth")


@pytest.mark.parametrize("name", sorted(set(REWARD_RULES) - {"ground_truth", "self_certainty", "entropy"}))
def test_no_other_rule_reads_an_answer_of_the_data_set(name: str) -> None:
    def gold(question_id: str) -> str:
        raise AssertionError(f"{name} read the answer of {question_id}")

    score(name, context=context_of(gold=gold))


def test_majority_vote_judges_the_group_by_itself() -> None:
    (scored,) = score("majority_vote")
    assert scored.rewards.tolist() == ELECTED_1
    assert (scored.label, scored.abstained) == ("1", False)
    assert scored.vote is not None
    assert scored.vote.share == pytest.approx(3 / 7)


def test_co_rewarding_i_judges_each_view_by_the_other() -> None:
    scored = score("co_rewarding_i")
    assert rewards(scored) == {ORIGINAL: [0, 1, 0, 0, 0, 0, 0, 1], REPHRASED: [0, 0, 0, 1, 0, 0, 0, 0]}
    assert [g.label for g in scored] == ["2", "1"]


def test_co_rewarding_ii_judges_by_the_teacher_on_the_same_view() -> None:
    scored = score("co_rewarding_ii")
    assert rewards(scored) == {ORIGINAL: [0, 0, 0, 1, 0, 0, 0, 0]}
    assert scored[0].vote is not None
    assert scored[0].vote.num_voters == 3


def test_co_rewarding_iii_judges_by_the_teacher_on_the_other_view() -> None:
    scored = score("co_rewarding_iii")
    assert rewards(scored) == {ORIGINAL: [0, 0, 0, 0, 1, 0, 0, 0], REPHRASED: [0, 0, 0, 0, 0, 1, 0, 0]}
    assert [g.label for g in scored] == ["4", "3"]


def test_confidence_rules_take_their_rewards_from_the_statistics() -> None:
    ids = [c.id for c in QUESTION.group(*ORIGINAL)]
    statistics = {i: TokenStatistics(id=i, self_certainty=2.0 + n, entropy=0.5 * n) for n, i in enumerate(ids)}
    (certain,) = score("self_certainty", context=context_of(statistics=statistics))
    (entropy,) = score("entropy", context=context_of(statistics=statistics))
    assert certain.rewards.tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    assert entropy.rewards.tolist() == [0, -0.5, -1, -1.5, -2, -2.5, -3, -3.5]
    assert not certain.abstained
    with pytest.raises(ValueError, match="all 8 completions of q/e0/original/policy, but 1 have none"):
        score("entropy", context=context_of(statistics={i: statistics[i] for i in ids[1:]}))


def test_random_is_a_fair_coin_fixed_by_seed_and_completion() -> None:
    heads = [
        reward
        for n in range(500)
        for reward in score("random", rollouts_of({ORIGINAL: ["1"] * 8}, question=f"q{n}"))[0].rewards
    ]
    assert set(heads) == {0.0, 1.0}
    assert abs(np.mean(heads) - 0.5) < 4 * 0.5 / math.sqrt(len(heads))
    (scored,) = score("random")
    assert scored.rewards.tolist() == [0, 1, 0, 0, 1, 0, 0, 0]  # the same in every process and on every machine
    (other,) = score("random", context=context_of(run_seed=8))
    assert other.rewards.tolist() != scored.rewards.tolist()


def test_a_label_that_abstains_leaves_without_reward_only_the_group_it_labels() -> None:
    rollouts = rollouts_of({ORIGINAL: ["5", "5", "6"], REPHRASED: [None, None, None]})
    original, rephrased = score("co_rewarding_i", rollouts)
    assert original.abstained
    assert original.label is None
    assert original.rewards.tolist() == [0, 0, 0]
    assert not rephrased.abstained
    assert rephrased.label == "5"


def test_a_teacher_without_a_single_answer_is_no_division_by_zero() -> None:
    rollouts = rollouts_of({ORIGINAL: ["5", "5"], ("original", "teacher"): [None, None]})
    (scored,) = score("co_rewarding_ii", rollouts)
    assert scored.abstained
    assert scored.rewards.tolist() == [0, 0]


def test_min_share_is_of_the_group_that_votes() -> None:
    original, rephrased = score("co_rewarding_i", context=context_of(min_share=0.5))
    assert [original.abstained, rephrased.abstained] == [True, True]
    (taught,) = score("co_rewarding_ii", context=context_of(min_share=0.5))
    assert not taught.abstained


answers = st.lists(st.sampled_from([None, "1", "1.0", "2", "1/2", "0.5"]), min_size=2, max_size=6)


@given(answers, answers)
def test_swapping_the_views_swaps_the_rewards_of_rule_i(one: list[str | None], other: list[str | None]) -> None:
    straight = rewards(score("co_rewarding_i", rollouts_of({ORIGINAL: one, REPHRASED: other})))
    swapped = rewards(score("co_rewarding_i", rollouts_of({ORIGINAL: other, REPHRASED: one})))
    assert straight == {ORIGINAL: swapped[REPHRASED], REPHRASED: swapped[ORIGINAL]}


@given(answers)
def test_two_views_that_answer_alike_reward_like_a_majority_vote(row: list[str | None]) -> None:
    crossed = rewards(score("co_rewarding_i", rollouts_of({ORIGINAL: row, REPHRASED: row})))
    alone = rewards(score("majority_vote", rollouts_of({ORIGINAL: row})))
    assert crossed[ORIGINAL] == crossed[REPHRASED] == alone[ORIGINAL]
