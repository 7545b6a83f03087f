"""Joining: a question is ready with its last group, in any order of arrival, and every group is taken in once."""

import itertools

import pytest

from corewarding.dataflow.carriers import Completion
from corewarding.dataflow.ids import SOURCES, VIEWS, AskedId, Source, View
from corewarding.learner.replay import joining as joining_module
from corewarding.learner.replay.joining import Joining
from tests.fakes import fake_group

KINDS = tuple(itertools.product(VIEWS, SOURCES))
Q = AskedId(question_id="q", epoch=0)


def make_joining() -> Joining:
    joining = Joining(dict.fromkeys(KINDS, 2), incarnation=0)
    joining.expect(Q)
    return joining


@pytest.mark.parametrize("order", list(itertools.permutations(KINDS)))
def test_a_question_is_ready_with_its_last_group(order: tuple[tuple[View, Source], ...]) -> None:
    joining = make_joining()
    arrived = [joining.add(fake_group("q", ["1", "2"], view=view, source=source)) for view, source in order]
    assert arrived[:3] == [None] * 3
    assert arrived[3] is not None
    assert set(arrived[3].groups) == {Q.group(view, source) for view, source in KINDS}
    assert (joining.num_completions, joining.num_ready) == (8, 1)
    joining.end(Q)
    assert (joining.num_completions, joining.num_ready) == (0, 1)


def test_a_group_is_sorted_by_sample_index() -> None:
    joining = Joining({("original", "policy"): 3}, incarnation=0)
    joining.expect(Q)
    first, second, third = fake_group("q", ["1", "2", "3"])
    question = joining.add([third, first, second])
    assert question is not None
    assert question.group("original", "policy") == (first, second, third)


def test_refusals_by_name() -> None:
    joining = make_joining()
    group = fake_group("q", ["1", "2"])
    assert joining.refusal(group) is None
    joining.add(group)
    assert joining.refusal(group) == "duplicate"
    assert joining.refusal(fake_group("q", ["1", "2"], incarnation=1)) == "lost_incarnation"
    assert joining.refusal(fake_group("r", ["1", "2"])) == "unasked"
    joining.end(Q)
    assert joining.refusal(group) == "duplicate"


def test_only_the_latest_ended_questions_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining_module, "REMEMBERED", 1)
    joining = make_joining()
    joining.end(Q)
    joining.expect(AskedId(question_id="r", epoch=0))
    joining.end(AskedId(question_id="r", epoch=0))
    assert joining.refusal(fake_group("q", ["1", "2"])) == "unasked"
    assert joining.refusal(fake_group("r", ["1", "2"])) == "duplicate"


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ([*fake_group("q", ["1"]), *fake_group("r", ["1"])], "mixes groups"),
        (fake_group("q", ["1", "2"])[:1], "are not one group"),
        (fake_group("q", ["1", "2", "3"]), "are not one group"),
    ],
)
def test_a_message_must_be_exactly_one_group(group: list[Completion], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        make_joining().refusal(group)
