"""Votes: hand-counted outcomes, and independence of arrival order."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewarding import rewards
from corewarding.dataflow.carriers import Completion
from corewarding.dataflow.ids import AskedId
from corewarding.dataflow.votes import VoteClass
from corewarding.rewards.answers.key import answer_key
from corewarding.rewards.voting import vote
from tests.unit.rewards.rollouts import completion, group_of, key


def test_counts_classes_and_not_spellings() -> None:
    group = group_of(["2", "0.5", r"\frac12", "2", r"\frac{1}{2}", None, "1/2", r"\dfrac{1}{2}"])
    result = vote(group, key=key, min_share=0.0)
    assert result.winner == "1/2"
    assert result.answer == "0.5"
    assert result.share == pytest.approx(5 / 7)
    assert result.num_voters == 7
    assert result.classes == (
        VoteClass(answer="0.5", sample_indices=(1, 2, 4, 6, 7)),
        VoteClass(answer="2", sample_indices=(0, 3)),
    )


def test_exact_equivalence_reproduces_the_split_vote() -> None:
    group = group_of(["2", "0.5", r"\frac12", "2", r"\frac{1}{2}", None, "1/2", r"\dfrac{1}{2}"])
    result = vote(group, key=lambda answer: answer_key(answer, equivalence="exact"), min_share=0.0)
    assert result.winner == "2"
    assert result.share == pytest.approx(2 / 7)


def test_a_tie_goes_to_the_smallest_sample_index_whatever_arrives_first() -> None:
    group = group_of([None, "b", "a", "a", "b", "c"])
    assert vote(group, key=key, min_share=0.0).answer == "b"
    assert vote(group[::-1], key=key, min_share=0.0).answer == "b"


def test_no_voter_is_an_abstention_and_no_division_by_zero() -> None:
    result = vote(group_of([None, None]), key=key, min_share=0.0)
    assert (result.winner, result.answer, result.share, result.num_voters) == (None, None, 0.0, 0)
    assert result.classes == ()


@pytest.mark.parametrize(("min_share", "winner"), [(0.0, "7"), (0.6, "7"), (0.61, None), (1.0, None)])
def test_a_share_below_the_bound_abstains(min_share: float, winner: str | None) -> None:
    result = vote(group_of(["7", "8", "7", None, "7", "9"]), key=key, min_share=min_share)
    assert result.winner == winner
    assert (result.answer is None) == (winner is None)
    assert result.share == 0.6
    assert result.classes[0].answer == "7"


def test_a_quorum_and_the_public_form() -> None:
    answers = ["1/2", None, "0.5", "3"]
    assert rewards.majority_vote(answers).winner == "1/2"
    assert rewards.majority_vote(answers, min_voters=3).num_voters == 3
    assert rewards.majority_vote(answers, min_voters=4).winner is None
    assert rewards.majority_vote([]).winner is None


def test_version_is_the_oldest_among_voters_or_among_all_without_a_voter() -> None:
    group = AskedId(question_id="q", epoch=0).group("original", "teacher")
    mute = completion(group, 0, None, versions=(1, 5))
    early = completion(group, 1, "7", versions=(3, 3, 4))
    late = completion(group, 2, "8", versions=(4, 6))
    assert vote([late, mute, early], key=key, min_share=0.0).version == 3
    assert vote([late], key=key, min_share=0.0).version == 4
    assert vote([mute], key=key, min_share=0.0).version == 1


def test_an_empty_group_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one completion"):
        vote([], key=key, min_share=0.0)


answers = st.lists(st.sampled_from([None, "1", "1.0", "1/2", "0.5", "x"]), min_size=1, max_size=8)


@given(answers.flatmap(lambda row: st.permutations(group_of(row))))
def test_the_order_of_arrival_changes_nothing(arrived: list[Completion]) -> None:
    in_order = sorted(arrived, key=lambda c: c.id.sample_index)
    assert vote(arrived, key=key, min_share=0.3) == vote(in_order, key=key, min_share=0.3)


@given(answers)
def test_winners_are_a_largest_class_and_classes_partition_the_voters(row: list[str | None]) -> None:
    result = vote(group_of(row), key=key, min_share=0.0)
    voters = [index for index, answer in enumerate(row) if answer is not None]
    assert sorted(index for c in result.classes for index in c.sample_indices) == voters
    assert result.num_voters == len(voters)
    if voters:
        assert result.share * len(voters) == pytest.approx(max(len(c.sample_indices) for c in result.classes))


def test_truncated_completions_vote() -> None:
    group = group_of(["7", "8", "8"])
    cut = [dataclasses.replace(c, finish_reason="length", token_versions=np.zeros(3, np.int32)) for c in group]
    assert vote(cut, key=key, min_share=0.0).winner == "8"
