"""pass@k against counting all subsets; the bootstrap interval against the values it must cover."""

from itertools import combinations

import numpy as np
import pytest

from corewarding.evals.estimates import bootstrap_interval, ks_of, pass_at_k


@pytest.mark.parametrize(("n", "c"), [(1, 0), (1, 1), (4, 1), (5, 2), (8, 3), (8, 8)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n, c):
    for k in range(1, n + 1):
        subsets = list(combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_1_is_the_mean_and_k_over_n_is_refused():
    assert pass_at_k(8, 3, 1) == pytest.approx(3 / 8)
    with pytest.raises(ValueError, match="needs at least 9 samples"):
        pass_at_k(8, 3, 9)


def test_which_k_are_reported():
    assert [ks_of(n) for n in (0, 1, 4, 6, 8)] == [[], [1], [1, 2, 4], [1, 2, 4, 6], [1, 2, 4, 8]]


def test_a_95_percent_interval_covers_the_truth_about_95_times_of_100():
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = bootstrap_interval(list(random.binomial(1, 0.4, size=100).astype(float)), seed=trial)
        covered += low <= 0.4 <= high
    assert 180 <= covered <= 199  # of 200; 190 expected, standard deviation 3.1


def test_an_interval_of_equal_values_has_no_width_and_of_none_is_refused():
    assert bootstrap_interval([0.5] * 9) == (0.5, 0.5)
    with pytest.raises(ValueError, match="at least one question"):
        bootstrap_interval([])
