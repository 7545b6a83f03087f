"""Group advantages against numbers worked out by hand, and the samples made of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewarding.dataflow.carriers import ScoredGroup
from corewarding.dataflow.ids import AskedId, GroupId
from corewarding.learner.objective.advantages import training_samples, zero_cause
from corewarding.rewards.advantages import group_advantages
from tests.unit.rewards.rollouts import completion

Q = AskedId(question_id="q", epoch=0).group("original", "policy")


def scored(
    rewards: list[float], *, group: GroupId = Q, label: str | None = "7", abstained: bool = False
) -> ScoredGroup:
    completions = tuple(
        completion(group, index, "7", versions=(0,) * (index + 1), finish_reason="length" if index == 0 else "stop")
        for index in range(len(rewards))
    )
    return ScoredGroup(
        id=group,
        completions=completions,
        rewards=np.array(rewards, np.float32),
        label=label,
        vote=None,
        abstained=abstained,
    )


def test_one_right_of_eight() -> None:
    advantages = group_advantages(np.array([1, 0, 0, 0, 0, 0, 0, 0], np.float32), normalize="std")
    assert advantages.dtype == np.float32
    assert advantages[0] == pytest.approx(2.4749, abs=5e-5)
    assert advantages[1:].tolist() == pytest.approx([-0.35355] * 7, abs=5e-6)


def test_without_normalization_only_the_mean_is_taken() -> None:
    advantages = group_advantages(np.array([1, 0, 0, 1], np.float32), normalize="none")
    assert advantages.tolist() == [0.5, -0.5, -0.5, 0.5]


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, -3.7e8])
@pytest.mark.parametrize("normalize", ["std", "none"])
def test_equal_rewards_give_exactly_zero(reward: float, normalize: str) -> None:
    assert group_advantages(np.full(7, reward, np.float32), normalize=normalize).tolist() == [0] * 7  # type: ignore[arg-type]


def test_rewards_that_hardly_differ_are_not_blown_up() -> None:
    advantages = group_advantages(np.array([0, 1e-9], np.float32), normalize="std")
    assert np.abs(advantages).max() < 1e-3


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=16))
def test_advantages_keep_the_order_sum_to_zero_and_have_unit_deviation(rewards: list[int]) -> None:
    array = np.array(rewards, np.float32)
    advantages = group_advantages(array, normalize="std")
    assert advantages.sum() == pytest.approx(0, abs=1e-4)
    assert np.all((np.subtract.outer(array, array) > 0) == (np.subtract.outer(advantages, advantages) > 0))
    if len(set(rewards)) > 1:
        assert advantages.std(ddof=1) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("rewards", [[], [1.0]])
def test_a_group_of_one_is_refused(rewards: list[float]) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        group_advantages(np.array(rewards, np.float32), normalize="std")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rewards_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        group_advantages(np.array([1.0, bad], np.float32), normalize="std")


@pytest.mark.parametrize(
    ("group", "cause"),
    [
        (scored([1, 1]), "all_right"),
        (scored([0, 0]), "all_wrong"),
        (scored([0, 0], label=None, abstained=True), "abstained"),
        (scored([0.3, 0.3], label=None), "equal"),
        (scored([1, 1], label=None), "equal"),
        (scored([1, 0]), None),
    ],
)
def test_the_cause_of_zero(group: ScoredGroup, cause: str | None) -> None:
    assert zero_cause(group) == cause
    assert (cause is None) == bool(np.any(group_advantages(group.rewards, normalize="std")))


def test_samples_are_sorted_by_id_and_carry_their_completion() -> None:
    other = dataclasses.replace(Q, view="rephrased")
    samples = training_samples(
        [scored([0, 1], group=other), scored([1, 0, 0])],
        normalize="std",
        mask_truncated=False,
        skip_zero_advantage=False,
    )
    assert [sample.id for sample in samples] == [Q.completion(i) for i in range(3)] + [
        other.completion(i) for i in range(2)
    ]
    assert [sample.advantage for sample in samples] == pytest.approx(
        [1.1547, -0.57735, -0.57735, -0.70711, 0.70711], abs=1e-4
    )
    assert all(sample.loss_mask.all() and len(sample.loss_mask) == len(sample.token_ids) for sample in samples)
    assert [len(sample.token_ids) for sample in samples] == [1, 2, 3, 1, 2]
    assert [sample.truncated for sample in samples] == [True, False, False, True, False]


def test_masking_truncated_completions_changes_masks_and_no_advantage() -> None:
    groups = [scored([1, 0, 0])]
    plain = training_samples(groups, normalize="std", mask_truncated=False, skip_zero_advantage=False)
    masked = training_samples(groups, normalize="std", mask_truncated=True, skip_zero_advantage=False)
    assert [sample.loss_mask.tolist() for sample in masked] == [[False], [True] * 2, [True] * 3]
    assert [sample.advantage for sample in masked] == [sample.advantage for sample in plain]


def test_skipping_leaves_out_groups_without_any_advantage() -> None:
    other = dataclasses.replace(Q, view="rephrased")
    groups = [scored([1, 1, 1]), scored([1, 0], group=other)]
    kept = training_samples(groups, normalize="std", mask_truncated=False, skip_zero_advantage=True)
    assert [sample.id.group for sample in kept] == [other, other]
    everything = training_samples(groups, normalize="std", mask_truncated=False, skip_zero_advantage=False)
    assert len(everything) == 5
