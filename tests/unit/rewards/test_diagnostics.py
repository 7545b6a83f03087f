"""Diagnostics on two questions worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from corewarding.dataflow.plugins import PluginError
from corewarding.rewards.diagnostics import QUESTION_METRICS, ScoredQuestions, question_metric, reward_diagnostics
from corewarding.rewards.rules.table import REWARD_RULES
from tests.unit.rewards.rollouts import context_of, key, rollouts_of

A = rollouts_of(
    {
        ("original", "policy"): ["7", "7", "8", None],
        ("rephrased", "policy"): ["8", "8", "8", "7"],
        ("original", "teacher"): ["7", "7"],
        ("rephrased", "teacher"): ["7", "9"],
    },
    question="a",
)
B = rollouts_of(
    {
        ("original", "policy"): ["7", "7", "7", "7"],
        ("rephrased", "policy"): ["7", "7", "7", "1"],
        ("original", "teacher"): [None, None],
        ("rephrased", "teacher"): ["5", "5"],
    },
    question="b",
)
GOLD = {"a": "7", "b": "5"}


def test_hand_counted_quantities() -> None:
    scored = [group for q in (A, B) for group in REWARD_RULES["co_rewarding_iii"].score(q, context_of())]
    metrics = reward_diagnostics([A, B], scored, key=key, gold=GOLD.get)
    expected = {
        "reward/mean": (2 + 1 + 0 + 0) / 16,  # labels: a 7 and 7, b 5 and none
        "reward/policy_accuracy_frac": (2 + 1 + 0 + 0) / 16,
        "reward/teacher_accuracy_frac": (2 + 1 + 0 + 2) / 8,
        "label/abstained_frac": 1 / 4,
        "label/share_mean": (1 / 2 + 1 + 1 + 0) / 4,
        "label/accuracy_frac": 1.0,
        "vote/share_mean": (2 / 3 + 3 / 4 + 1 + 3 / 4) / 4,
        "vote/teacher_share_mean": (1 + 1 / 2 + 0 + 1) / 4,
        "vote/num_answers_mean": (2 + 2 + 1 + 2) / 4,
        "vote/no_answer_frac": 1 / 16,
        "vote/text_answer_frac": 0.0,
        "vote/teacher_no_answer_frac": 2 / 8,
        "vote/accuracy_frac": 1 / 4,
        "vote/teacher_accuracy_frac": 3 / 4,
        "vote/agreement_teacher_policy_frac": 1 / 3,  # a: 7 = 7, 7 != 8; b: no teacher, 5 != 7
        "vote/agreement_original_rephrased_frac": 1 / 2,
        "vote/top_answer_frac": (3 / 7 + 7 / 8) / 2,  # 7
        "length/tokens_mean": 3.0,
        "length/tokens_max": 3.0,
        "length/repetition_mean": 0.0,
        "length/teacher_tokens_mean": 3.0,
        "length/truncated_frac": 0.0,
        "length/teacher_truncated_frac": 0.0,
    }
    assert metrics.scalars == pytest.approx(expected)
    assert metrics.histograms["vote/share"].tolist() == pytest.approx([2 / 3, 3 / 4, 1, 3 / 4])
    assert metrics.histograms["length/completion_tokens"].tolist() == [3] * 16


def test_a_metric_without_values_is_left_out() -> None:
    alone = rollouts_of({("original", "policy"): ["7", "8"]})
    scored = REWARD_RULES["majority_vote"].score(alone, context_of())
    metrics = reward_diagnostics([alone], scored, key=key, gold=None)
    assert not any("accuracy" in name or "teacher" in name or "agreement" in name for name in metrics.scalars)
    assert "vote/top_answer_frac" not in metrics.scalars
    assert metrics.scalars["reward/mean"] == 0.5


def test_no_question_is_no_metric() -> None:
    metrics = reward_diagnostics([], [], key=key, gold=GOLD.get)
    assert metrics.scalars == {}
    assert metrics.histograms == {}


def test_a_metric_of_a_plug_in_is_a_mean_or_left_out() -> None:
    @question_metric("mine/answers_mean")
    def answers(questions: ScoredQuestions) -> Iterator[float]:
        yield from (float(completion.answer is not None) for completion in questions.policy)

    @question_metric("mine/none_frac")
    def none(questions: ScoredQuestions) -> list[float]:
        return []

    try:
        scalars = reward_diagnostics([A, B], [], key=key, gold=None).scalars
    finally:
        QUESTION_METRICS.unregister("mine/answers_mean")
        QUESTION_METRICS.unregister("mine/none_frac")
    assert scalars["mine/answers_mean"] == 15 / 16
    assert "mine/none_frac" not in scalars


def test_a_metric_that_fails_is_named_with_its_line() -> None:
    @question_metric("mine/broken")
    def broken(questions: ScoredQuestions) -> Iterator[float]:
        yield 1 / len(questions.teacher)

    try:
        with pytest.raises(
            PluginError, match=r"metric 'mine/broken' failed: .*test_diagnostics\.py line \d+: ZeroDivision"
        ):
            reward_diagnostics([], [], key=key, gold=None)
    finally:
        QUESTION_METRICS.unregister("mine/broken")
