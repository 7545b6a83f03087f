"""The arithmetic world: disjoint splits, two different wordings, right answers, and the same list for the same seed."""

from __future__ import annotations

import re

import pytest

from corewarding.questions.arithmetic.wordings import NAMES, THINGS, WORDINGS
from corewarding.questions.arithmetic.world import (
    LEVEL_OPERATIONS,
    SPLIT_SHARES,
    Demonstration,
    Problem,
    arithmetic_questions,
    demonstrations,
    draw_problems,
    split_of,
)

SPLITS = tuple(SPLIT_SHARES)
NUM = 2000


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def jaccard(left: str, right: str) -> float:
    words_left, words_right = (set(re.findall(r"\w+", text.lower())) for text in (left, right))
    return len(words_left & words_right) / len(words_left | words_right)


def calculate(problem: Problem) -> int:
    """Written apart from the solver, one formula per operation."""
    a, b, *rest = problem.operands
    c = rest[0] if rest else 0
    return {
        "add": a + b,
        "subtract": a - b,
        "multiply": a * b,
        "add_subtract": a + b - c,
        "subtract_add": a - b + c,
        "multiply_add": a * b + c,
        "multiply_subtract": a * b - c,
    }[problem.operation]


@pytest.fixture(scope="module")
def problems() -> dict[str, list[Problem]]:
    return {split: list(draw_problems(split=split, num=NUM, seed=17)) for split in SPLITS}


def test_splits_are_disjoint_by_operands(problems: dict[str, list[Problem]]) -> None:
    seen = {split: {tuple(sorted(p.operands)) for p in drawn} for split, drawn in problems.items()}
    assert not seen["train"] & seen["heldout"]
    assert not seen["train"] & seen["demonstrations"]
    assert not seen["heldout"] & seen["demonstrations"]


def test_order_and_operation_do_not_move_operands_to_another_split() -> None:
    assert split_of((12, 7)) == split_of((7, 12))
    assert split_of((3, 9, 4)) == split_of((9, 4, 3))


def test_split_shares_are_met() -> None:
    pairs = [(a, b) for a in range(2, 100) for b in range(2, a)]
    for split, share in SPLIT_SHARES.items():
        assert sum(split_of(pair) == split for pair in pairs) / len(pairs) == pytest.approx(share, abs=0.03)


def test_no_template_is_on_both_sides() -> None:
    originals = [pair[0] for pairs in WORDINGS.values() for pair in pairs]
    rephrased = [pair[1] for pairs in WORDINGS.values() for pair in pairs]
    assert len(set(originals) | set(rephrased)) == len(originals) + len(rephrased)


def test_wordings_share_at_most_half_their_words(problems: dict[str, list[Problem]]) -> None:
    assert max(jaccard(p.original, p.rephrased) for drawn in problems.values() for p in drawn) <= 0.5


def test_every_template_is_asked(problems: dict[str, list[Problem]]) -> None:
    asked = {(p.operation, p.template) for p in problems["train"]}
    assert asked == {(operation, index) for operation, pairs in WORDINGS.items() for index in range(len(pairs))}


def test_both_wordings_state_exactly_the_operands(problems: dict[str, list[Problem]]) -> None:
    for problem in problems["train"]:
        assert sorted(numbers(problem.original)) == sorted(problem.operands)
        assert sorted(numbers(problem.rephrased)) == sorted(problem.operands)
        assert "{" not in problem.original + problem.rephrased


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_right_and_in_range(split: str, problems: dict[str, list[Problem]]) -> None:
    questions, answers = arithmetic_questions(split=split, num=NUM, seed=17)  # type: ignore[arg-type]
    assert len(questions) == len(answers) == NUM
    for question, problem in zip(questions, problems[split], strict=True):
        assert (question.original, question.rephrased) == (problem.original, problem.rephrased)
        assert int(answers[question.id]) == calculate(problem)
        assert 1 <= calculate(problem) <= 120


def test_hand_worked_question() -> None:
    questions, answers = arithmetic_questions(split="train", num=50, seed=3, levels=(1,))
    asked = next(q for q in questions if "gives away" in q.original)
    have, given = numbers(asked.original)
    assert answers[asked.id] == str(have - given)


def test_ids_are_unique_and_named_after_split_and_seed() -> None:
    ids = [
        q.id for split in SPLITS for seed in (0, 17) for q in arithmetic_questions(split=split, num=200, seed=seed)[0]
    ]
    assert len(set(ids)) == len(ids)
    assert "arith-train-17-000123" in ids


def test_same_seed_same_questions_and_a_longer_list_begins_with_the_shorter() -> None:
    long, _ = arithmetic_questions(split="train", num=60, seed=5)
    short, _ = arithmetic_questions(split="train", num=40, seed=5)
    other, _ = arithmetic_questions(split="train", num=40, seed=6)
    assert long[:40] == short
    assert [q.original for q in short] != [q.original for q in other]


def test_levels_select_operations() -> None:
    for level, operations in LEVEL_OPERATIONS.items():
        drawn = list(draw_problems(split="train", num=200, seed=1, levels=(level,)))
        assert {p.operation for p in drawn} == set(operations)
        assert {p.level for p in drawn} == {level}
        assert {len(p.operands) for p in drawn} == ({3} if level == 3 else {2})


def test_levels_rise_in_size() -> None:
    assert max(max(p.operands) for p in draw_problems(split="train", num=400, seed=1, levels=(1,))) <= 20
    assert max(max(p.operands) for p in draw_problems(split="train", num=400, seed=1, levels=(2,))) > 60


@pytest.mark.parametrize("levels", [(), (4,), (0, 1)])
def test_unknown_level_is_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="arithmetic levels must be"):
        arithmetic_questions(split="train", num=1, seed=0, levels=levels)


def final_result(demonstration: Demonstration) -> tuple[int, int]:
    """The last calculation redone from its own text, and the number given as the answer."""
    *_, (left, symbol, right) = re.findall(r"(\d+) ([+*-]) (\d+) =", demonstration.completion)
    right_result = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[symbol]
    return right_result, numbers(demonstration.completion)[-1]


def test_clean_demonstrations_are_right_and_boxed() -> None:
    for demonstration in demonstrations(num=500, seed=4):
        right, given = final_result(demonstration)
        assert right == given
        assert demonstration.completion.endswith(f"\\boxed{{{right}}}")


def test_demonstrations_come_from_their_own_split_and_from_both_views() -> None:
    for demonstration in demonstrations(num=500, seed=4):
        assert split_of(tuple(numbers(demonstration.question))) == "demonstrations"
    drawn = list(draw_problems(split="demonstrations", num=500, seed=4))
    asked = [d.question for d in demonstrations(num=500, seed=4)]
    assert 0.4 < sum(q == p.original for q, p in zip(asked, drawn, strict=True)) / 500 < 0.6


def test_mistakes_have_the_stated_shares_and_change_one_digit() -> None:
    noisy = list(demonstrations(num=3000, seed=4, wrong_digit_share=0.3, missing_box_share=0.2))
    wrong = [(str(r), str(g)) for r, g in map(final_result, noisy) if r != g]
    assert len(wrong) / 3000 == pytest.approx(0.3, abs=0.03)
    assert sum("boxed" not in d.completion for d in noisy) / 3000 == pytest.approx(0.2, abs=0.03)
    for right, given in wrong:
        assert len(right) == len(given)
        assert sum(x != y for x, y in zip(right, given, strict=True)) == 1
    assert all(re.search(r"= (\d+)\. (?:\\boxed\{\1\}|The answer is \1\.)$", d.completion) for d in noisy)


def test_fillers_are_single_words() -> None:
    assert all(re.fullmatch(r"[A-Za-z]+", word) for word in NAMES + THINGS)
