"""Alarms of hand-made metrics: when they are raised, not raised, and raised again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from corewarding.rewards.collapse import CollapseAlarm, repetition
from corewarding.rewards.settings import CollapseSettings


def alarms(
    values: Sequence[float], *, key: str = "vote/top_answer_frac", questions: int = 16, **settings: Any
) -> list[tuple[int, str]]:
    """(update, signal) of every alarm for a run's values of one metric."""
    alarm = CollapseAlarm(CollapseSettings(**settings), questions_per_update=questions)
    return [(raised.update, raised.signal) for n, v in enumerate(values, 1) for raised in alarm.seen(n, {key: v})]


def test_three_updates_in_a_row_over_the_threshold_raise_one_alarm() -> None:
    assert alarms([0.1] * 5 + [0.9] * 6) == [(8, "top_answer_frac")]
    assert alarms([0.1] * 5 + [0.9, 0.9, 0.1] * 4) == []
    assert alarms([0.1] * 5 + [0.9] * 6, patience=1) == [(6, "top_answer_frac")]


def test_an_alarm_may_be_raised_again_after_it_has_fallen() -> None:
    assert alarms([0.1] * 3 + [0.9] * 4 + [0.1] + [0.9] * 3) == [(6, "top_answer_frac"), (11, "top_answer_frac")]


def test_a_signal_that_is_high_from_the_start_is_no_collapse() -> None:
    truncated = {"key": "length/truncated_frac"}
    assert alarms([0.7] * 20, **truncated) == []  # a base model that is cut off from the start
    assert alarms([0.7] * 5 + [0.95] * 3, **truncated) == [(8, "truncated_frac")]
    assert alarms([0.1] * 5 + [0.7] * 3, **truncated) == [(8, "truncated_frac")]


def test_a_threshold_of_none_is_off_and_few_questions_turn_off_top_answer() -> None:
    collapsed = [0.1] * 3 + [0.9] * 5
    assert alarms(collapsed, top_answer_frac=None) == []
    assert alarms(collapsed, questions=4) == []
    assert alarms(collapsed, questions=4, key="vote/no_answer_frac") == [(6, "no_answer_frac")]


def test_an_alarm_says_the_meaning_the_metric_and_the_key() -> None:
    alarm = CollapseAlarm(CollapseSettings(patience=1), questions_per_update=16)
    alarm.seen(1, {"vote/no_answer_frac": 0.1})
    (raised,) = alarm.seen(2, {"vote/no_answer_frac": 0.75})
    assert "most completions hold no answer" in str(raised)
    assert "vote/no_answer_frac 0.75, collapse.no_answer_frac 0.6, at update 2" in str(raised)
    assert alarm.raised == ("no_answer_frac",)


@pytest.mark.parametrize(
    ("tokens", "share"),
    [
        ([1, 2, 3], 0.0),
        ([1, 2, 3, 4, 5, 6], 0.0),
        ([1] * 7, 3 / 4),  # 4 windows, one kind
        ([1, 2, 3, 4, 1, 2, 3, 4], 1 / 5),  # 1234 2341 3412 4123 1234
        ([1, 2] * 50, 95 / 97),
        ([0] * 5, 1 / 2),
    ],
)
def test_repetition_by_hand(tokens: list[int], share: float) -> None:
    assert repetition(np.array(tokens, np.int32)) == pytest.approx(share)


def test_repetition_tells_windows_apart_as_a_set_of_tuples_does() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        tokens = random.integers(0, 3, size=60).astype(np.int32)
        windows = [tuple(tokens[i : i + 4]) for i in range(57)]
        assert repetition(tokens) == pytest.approx(1 - len(set(windows)) / 57)
