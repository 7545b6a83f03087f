"""Self-Harmony, EMPO, EVOL-RL, RESTRAIN and trajectory rewards on questions worked out by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup
from corewarding.rewards.advantages import advantages_of, group_advantages
from corewarding.rewards.rules.contract import POLICY_ORIGINAL, POLICY_REPHRASED, TEACHER_ORIGINAL, RuleContext
from corewarding.rewards.rules.evol_rl import banded
from corewarding.rewards.rules.table import REWARD_RULES
from corewarding.rewards.settings import RuleSettings
from corewarding.rewards.similarity import ngram_similarity
from tests.unit.rewards.rollouts import context_of, rollouts_of


def score(name: str, rollouts: QuestionRollouts, context: RuleContext | None = None) -> list[ScoredGroup]:
    return REWARD_RULES[name].score(rollouts, context or context_of())


def with_logprobs(rollouts: QuestionRollouts, logprobs: list[list[float]]) -> QuestionRollouts:
    """The original policy group with these tokens' log-probabilities."""
    group = rollouts.asked.group(*POLICY_ORIGINAL)
    changed = tuple(
        dataclasses.replace(
            completion,
            behavior_logprobs=np.array(row),
            token_ids=np.arange(len(row)),
            token_versions=np.zeros(len(row), int),
        )
        for completion, row in zip(rollouts.groups[group], logprobs, strict=True)
    )
    return dataclasses.replace(rollouts, groups=rollouts.groups | {group: changed})


# ---- Self-Harmony -----------------------------------------------------------------------------------------------------

# Original: 1 x3, 2 x2, 3 x1 of 6. Rephrased: 2 x3, 1 x1 of 4.
TWO_WORDINGS = rollouts_of(
    {POLICY_ORIGINAL: ["1", "2", "1", "3", "1", "2", None], POLICY_REPHRASED: ["2", "2", "1", "2.0", None]}
)


def test_self_harmony_takes_the_harmonic_mean_of_the_shares() -> None:
    original, rephrased = score("self_harmony", TWO_WORDINGS)
    # 1: 2 (1/2)(1/4) / (3/4) = 1/3; 2: 2 (1/3)(3/4) / (13/12) = 6/13. The majority of the original wording was 1.
    assert (original.label, rephrased.label) == ("2", "2")
    assert original.vote is not None
    assert original.vote.share == pytest.approx(6 / 13)
    assert original.rewards.tolist() == [0, 1, 0, 0, 0, 1, 0]
    assert rephrased.rewards.tolist() == [1, 1, 0, 1, 0]


def test_self_harmony_abstains_without_a_common_answer_or_below_min_share() -> None:
    apart = rollouts_of({POLICY_ORIGINAL: ["1", "1"], POLICY_REPHRASED: ["2", "2"]})
    for rollouts, context in ((apart, context_of()), (TWO_WORDINGS, context_of(min_share=0.5))):
        scored = score("self_harmony", rollouts, context)
        assert [group.abstained for group in scored] == [True, True]
        assert all(not group.rewards.any() for group in scored)


# ---- EMPO -------------------------------------------------------------------------------------------------------------


def test_empo_rewards_the_share_of_the_answer_among_all_completions() -> None:
    (scored,) = score("empo", rollouts_of({POLICY_ORIGINAL: ["1", "2", "1.0", None, "3", "1", "2", None]}))
    assert scored.rewards.tolist() == pytest.approx([3 / 8, 2 / 8, 3 / 8, 0, 1 / 8, 3 / 8, 2 / 8, 0])
    assert (scored.label, scored.abstained) == ("1", False)


def test_empo_gives_nothing_if_the_entropy_of_answers_reaches_its_bound() -> None:
    (different,) = score("empo", rollouts_of({POLICY_ORIGINAL: ["1", "2", None, "3"]}))
    assert different.abstained
    assert different.rewards.tolist() == [0, 0, 0, 0]
    rollouts = rollouts_of({POLICY_ORIGINAL: ["1", "1", "2", "3"]})  # entropy 1.0397
    for bound, filtered in ((1.03, True), (1.05, False)):
        (scored,) = score("empo", rollouts, context_of(settings=RuleSettings(empo_entropy_bound=bound)))
        assert scored.abstained is filtered
        assert bool(scored.rewards.any()) is not filtered


def test_empo_with_a_teacher_rewards_the_share_among_the_teachers_answers() -> None:
    rollouts = rollouts_of({POLICY_ORIGINAL: ["1", "2", "5"], TEACHER_ORIGINAL: ["1", "1", "1", "2"]})
    (scored,) = REWARD_RULES["empo"].labelled("teacher").score(rollouts, context_of())
    assert scored.rewards.tolist() == [0.75, 0.25, 0]


# ---- EVOL-RL ----------------------------------------------------------------------------------------------------------


def test_novelty_decides_within_the_band_by_hand() -> None:
    similarity = np.array(
        [[1.0, 0.8, 0.2, 0.4], [0.8, 1.0, 0.6, 0.0], [0.2, 0.6, 1.0, 0.5], [0.4, 0.0, 0.5, 1.0]], np.float32
    )
    rewards = banded(similarity, np.array([True, True, True, False]))
    # Mean within the band and largest over all, halved: 0: (0.5 + 0.8)/2 = 0.65, 1: (0.7 + 0.8)/2 = 0.75, 2: (0.4 + 0.6)/2 = 0.5.
    # Novelty 0.35, 0.25, 0.5, scaled to [0, 1]: 0.4, 0, 1. The lone wrong answer gets -0.5.
    assert rewards.tolist() == pytest.approx([0.7, 0.5, 1.0, -0.5])


def test_equally_novel_answers_get_the_middle_of_their_band_and_a_lone_right_one_the_most() -> None:
    alike = np.ones((4, 4), np.float32)
    assert banded(alike, np.array([True, True, False, False])).tolist() == [0.75, 0.75, -0.75, -0.75]
    assert banded(alike[:1, :1], np.array([True])).tolist() == [1.0]


def test_evol_rl_gives_the_majority_positive_and_others_negative_rewards() -> None:
    (scored,) = score("evol_rl", rollouts_of({POLICY_ORIGINAL: ["1", "2", "1", None, "1.0"]}))
    assert scored.rewards.tolist() == pytest.approx([0.75, -0.5, 0.75, -1.0, 0.75])  # fakes have the same tokens
    (nothing,) = score("evol_rl", rollouts_of({POLICY_ORIGINAL: [None, None]}))
    assert nothing.abstained
    assert nothing.rewards.tolist() == [0, 0]


def test_ngram_similarity_is_the_cosine_of_counts() -> None:
    one, other, third = (
        dataclasses.replace(
            c, token_ids=np.array(ids), behavior_logprobs=np.zeros(len(ids)), token_versions=[0] * len(ids)
        )
        for c, ids in zip(
            rollouts_of({POLICY_ORIGINAL: ["1", "1", "1"]}).completions,
            ([1, 2, 3, 1, 2], [1, 2, 3, 4, 5], [7]),
            strict=True,
        )
    )
    similar = ngram_similarity([one, other, third], n=2)
    # one: (1,2) twice, (2,3), (3,1); other: (1,2), (2,3), (3,4), (4,5). Dot 3, norms sqrt 6 and 2.
    assert similar[0, 1] == pytest.approx(3 / (math.sqrt(6) * 2))
    assert similar[0, 0] == pytest.approx(1.0)
    assert similar[2, 2] == pytest.approx(1.0)
    assert similar[0, 2] == 0.0
    assert np.array_equal(similar, similar.T)


# ---- RESTRAIN ---------------------------------------------------------------------------------------------------------

ANSWERS = ["1", "1", "1", "2", "2", "3", None, "1"]  # 4, 2 and 1 of 8


def test_restrain_weighs_every_answer_as_a_label() -> None:
    (scored,) = score("restrain", rollouts_of({POLICY_ORIGINAL: ANSWERS}))
    gaussians = [math.exp(-((f - 1) ** 2) / 0.5) for f in (4 / 8, 2 / 8, 1 / 8)]
    weights = [g / sum(gaussians) for g in gaussians]
    assert weights == pytest.approx([0.5286, 0.2829, 0.1885], abs=1e-4)
    expected = np.zeros(8)
    for label, weight in zip("123", weights, strict=True):
        matching = np.array([answer == label for answer in ANSWERS], np.float32)
        expected += weight * group_advantages(matching, normalize="std")
    assert advantages_of(scored, normalize="std").tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert scored.rewards.tolist() == pytest.approx([weights[0]] * 3 + [weights[1]] * 2 + [weights[2], 0, weights[0]])
    assert (scored.label, scored.offset, scored.abstained) == ("1", 0.0, False)
    # The initial model gave 1, 1, 2 and no answer: share 1/2.
    assert scored.weights is not None
    assert scored.weights.tolist() == pytest.approx([math.exp(-(0.5**2) / 0.5)] * 8)


def test_restrain_penalises_a_question_without_a_majority() -> None:
    settings = RuleSettings(restrain_penalty=0.7)
    (scored,) = score("restrain", rollouts_of({POLICY_ORIGINAL: ["1", "1", "2", None]}), context_of(settings=settings))
    assert scored.offset == -0.7
    assert advantages_of(scored, normalize="std").tolist() == pytest.approx([-0.7] * 4)
    assert not scored.rewards.any()


def test_restrain_needs_the_initial_models_answers() -> None:
    with pytest.raises(ValueError, match=r"initial model's answers to question q \(original\), got none"):
        score("restrain", rollouts_of({POLICY_ORIGINAL: ANSWERS}), context_of(initial=lambda question, view: None))


# ---- trajectories -----------------------------------------------------------------------------------------------------

TRAJECTORIES = with_logprobs(
    rollouts_of({POLICY_ORIGINAL: ["1", "2", "3"]}),
    [[math.log(0.5), math.log(0.5)], [math.log(0.25)], [math.log(0.125), 0.0]],
)


def test_trajectory_rewards_are_the_sum_of_logs_and_the_product() -> None:
    (entropy,) = score("trajectory_entropy", TRAJECTORIES)
    (probability,) = score("trajectory_probability", TRAJECTORIES)
    assert entropy.rewards.tolist() == pytest.approx([math.log(0.25), math.log(0.25), math.log(0.125)])
    assert probability.rewards.tolist() == pytest.approx([0.25, 0.25, 0.125])
    own = group_advantages(probability.rewards, normalize="std")
    assert advantages_of(probability, normalize="std").tolist() == pytest.approx(own.tolist(), rel=1e-4)


def test_the_probability_of_long_completions_still_ranks_them() -> None:
    long = with_logprobs(TRAJECTORIES, [[-1.0] * 400, [-1.0] * 401, [-1.0] * 400])
    (scored,) = score("trajectory_probability", long)
    assert not scored.rewards.any()  # below the smallest float32
    assert advantages_of(scored, normalize="std").tolist() == pytest.approx([0.57735, -1.1547, 0.57735], rel=1e-3)


# ---- confidence weights -----------------------------------------------------------------------------------------------


def test_a_confident_minority_wins_a_weighted_vote() -> None:
    logs = [[math.log(0.3)] * 2, [math.log(0.3), math.log(0.3)], [math.log(0.9)], [math.log(0.2)]]
    rollouts = with_logprobs(rollouts_of({POLICY_ORIGINAL: ["1", "1", "2", None]}), logs)
    (equal,) = score("majority_vote", rollouts)
    (confident,) = score("majority_vote", rollouts, context_of(weights="confidence"))
    assert (equal.label, confident.label) == ("1", "2")
    assert confident.vote is not None
    assert confident.vote.share == pytest.approx(0.9 / 1.5)
    assert confident.vote.num_voters == 3
