"""Held-out accuracies by hand: three questions, four samples each."""

import pytest

from corewarding.evals.heldout import GREEDY_EPOCH, SAMPLED_EPOCH, EvalResult, score_completions
from corewarding.questions.gold import GoldAnswers
from tests.fakes import fake_group


def answered(question, greedy, sampled):
    return [*fake_group(question, [greedy], epoch=GREEDY_EPOCH), *fake_group(question, sampled, epoch=SAMPLED_EPOCH)]


def test_three_questions_by_hand():
    completions = [
        *answered("a", "7", ["7", "7.0", "3", None]),  # 2 of 4; the vote elects 7
        *answered("b", "5", ["4", "4", "5", "5"]),  # 2 of 4
        *answered("c", None, ["9", "9", "9", "9"]),  # none: the answer is 8
    ]
    result = score_completions(completions, GoldAnswers({"a": "7", "b": "5", "c": "8"}), n=4)
    assert result.num_questions == 3
    assert result.greedy == pytest.approx(2 / 3)
    assert result.mean == pytest.approx((2 / 4 + 2 / 4 + 0) / 3)
    assert result.no_answer_frac == pytest.approx(2 / 15)
    assert result.maj in (pytest.approx(1 / 3), pytest.approx(2 / 3))  # b is a tie


def test_a_tied_vote_does_not_depend_on_the_order_of_arrival():
    completions = answered("b", "5", ["4", "4", "5", "5"])
    gold = GoldAnswers({"b": "5"})
    forwards = score_completions(completions, gold, n=4)
    assert score_completions(completions[::-1], gold, n=4) == forwards


def test_questions_without_an_answer_are_left_out():
    completions = [*answered("a", "7", ["7", "1"]), *answered("unknown", "7", ["7", "7"])]
    result = score_completions(completions, GoldAnswers({"a": "7"}), n=2)
    assert (result.num_questions, result.mean) == (1, 0.5)
    with pytest.raises(ValueError, match="nothing can be evaluated"):
        score_completions(completions, GoldAnswers.without(), n=2)


def test_greedy_alone_says_nothing_of_samples():
    result = score_completions(fake_group("a", ["7"], epoch=GREEDY_EPOCH), GoldAnswers({"a": "7"}), n=8)
    assert (result.greedy, result.mean, result.maj) == (1.0, None, None)


def test_a_result_survives_its_dictionary():
    result = EvalResult(num_questions=3, n=4, greedy=0.5, mean=0.25, maj=0.75, mean_length=3.0)
    assert result.as_dict()["mean@4"] == 0.25
    assert EvalResult.from_dict(result.as_dict()) == result
