"""The cursor's laws: an epoch asks each question once, resuming changes nothing, returned questions come first."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewarding.dataflow.errors import CursorError
from corewarding.questions.order import QuestionCursor, shuffled

SIZES = st.integers(1, 40)
SEEDS = st.integers(-(2**63), 2**64)


def take(cursor: QuestionCursor, n: int) -> list[tuple[int, int]]:
    items = cursor.peek(n)
    cursor.advance(n)
    return items


@given(num=SIZES, seed=SEEDS, epochs=st.integers(1, 4))
def test_each_epoch_is_a_permutation(num: int, seed: int, epochs: int) -> None:
    items = QuestionCursor(num, seed).peek(num * epochs)
    for epoch in range(epochs):
        part = items[epoch * num : (epoch + 1) * num]
        assert {e for e, _ in part} == {epoch}
        assert sorted(i for _, i in part) == list(range(num))


@given(num=SIZES, seed=SEEDS, per_update=st.integers(1, 50))
def test_the_last_incomplete_update_of_an_epoch_is_left_out(num: int, seed: int, per_update: int) -> None:
    cursor = QuestionCursor(num, seed, drop_remainder_of=per_update)
    length = num // per_update * per_update if num >= per_update else num
    assert cursor.questions_per_epoch == length
    items = take(cursor, 3 * length)
    for epoch in range(3):
        part = [i for e, i in items if e == epoch]
        assert len(part) == len(set(part)) == length


@given(
    num=SIZES, seed=SEEDS, per_update=st.integers(1, 9), steps=st.lists(st.integers(0, 13), max_size=6), data=st.data()
)
def test_resuming_at_any_point_gives_the_same_sequence(
    num: int, seed: int, per_update: int, steps: list[int], data: st.DataObject
) -> None:
    cursor = QuestionCursor(num, seed, drop_remainder_of=per_update)
    for n in steps:
        asked = take(cursor, n)
        cursor.give_back(asked[: data.draw(st.integers(0, n))])
    state = json.loads(json.dumps(cursor.state()))
    resumed = QuestionCursor.restore(state, num_questions=num, seed=seed)
    assert resumed.state() == cursor.state()
    assert [take(resumed, 1)[0] for _ in range(2 * num)] == take(cursor, 2 * num)


@given(num=SIZES, seed=SEEDS, asked=st.integers(0, 60), data=st.data())
def test_what_is_given_back_is_asked_once_more_and_first(num: int, seed: int, asked: int, data: st.DataObject) -> None:
    straight = QuestionCursor(num, seed).peek(asked + 10)
    cursor = QuestionCursor(num, seed)
    items = take(cursor, asked)
    back = [item for item in items if data.draw(st.booleans())]
    cursor.give_back(back)
    assert cursor.num_pending == len(back)
    assert cursor.peek(len(back)) == back
    assert cursor.peek(len(back) + 10) == back + straight[asked:]
    take(cursor, len(back))
    assert cursor.peek(10) == straight[asked:]


def test_peek_moves_nothing() -> None:
    cursor = QuestionCursor(5, 0)
    assert cursor.peek(7) == cursor.peek(7)
    cursor.advance(2)
    assert cursor.peek(5) == QuestionCursor(5, 0).peek(7)[2:]


def test_the_order_is_this_one_on_every_machine() -> None:
    assert shuffled(8, seed=0, epoch=0) == (0, 2, 1, 5, 4, 3, 6, 7)


def test_seed_and_epoch_change_the_order() -> None:
    orders = {shuffled(50, seed=seed, epoch=epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)}
    assert len(orders) == 9


def test_three_epochs_of_the_paper() -> None:
    """docs/algorithm.md: 128 questions per update make 174 updates of MATH, 330 of DAPO-14k, 162 of Open-RS."""
    for num, updates in ((7500, 174), (14109, 330), (6999, 162)):
        assert 3 * QuestionCursor(num, 0, drop_remainder_of=128).questions_per_epoch == updates * 128


def test_a_cursor_of_other_data_is_refused_with_the_reason() -> None:
    state = QuestionCursor(10, 3, drop_remainder_of=4).state()
    with pytest.raises(CursorError, match=r"num_questions 10, this run 11.*same data and seed"):
        QuestionCursor.restore(state, num_questions=11, seed=3)
    with pytest.raises(CursorError, match="seed 3, this run 4"):
        QuestionCursor.restore(state, num_questions=10, seed=4)
    with pytest.raises(CursorError, match="drop_remainder_of 4, this run 5"):
        QuestionCursor.restore(state, num_questions=10, seed=3, drop_remainder_of=5)
    assert QuestionCursor.restore(state, num_questions=10, seed=3, drop_remainder_of=4).questions_per_epoch == 8


def test_what_was_not_asked_cannot_be_given_back() -> None:
    cursor = QuestionCursor(10, 0)
    first, second = cursor.peek(2)
    cursor.advance(1)
    with pytest.raises(CursorError, match="never asked"):
        cursor.give_back([second])
    with pytest.raises(CursorError, match="never asked"):
        cursor.give_back([(1, first[1])])
    cursor.give_back([first])
    with pytest.raises(CursorError, match="twice"):
        cursor.give_back([first])
    assert cursor.peek(2) == [first, second]


def test_a_refused_give_back_changes_nothing() -> None:
    cursor = QuestionCursor(10, 0)
    first, second = cursor.peek(2)
    cursor.advance(1)
    before = cursor.state()
    with pytest.raises(CursorError):
        cursor.give_back([first, second])
    assert cursor.state() == before


def test_sizes_that_make_no_sense() -> None:
    with pytest.raises(CursorError, match="at least 1"):
        QuestionCursor(0, 0)
    with pytest.raises(CursorError, match="at least 1"):
        QuestionCursor(4, 0, drop_remainder_of=0)
    with pytest.raises(CursorError, match="forward only"):
        QuestionCursor(4, 0).advance(-1)
