"""Totals over loss tokens: by hand, and the same however the tokens are cut into micro-batches."""

from __future__ import annotations

import math

import pytest
import torch

from corewarding.learner.objective.loss import objective
from corewarding.learner.objective.metrics import LossTotals, report, sums
from corewarding.learner.settings import CorrectionSettings, LossSettings
from tests.unit.learner.objective.test_loss import batch_of

CORRECTION = CorrectionSettings(mode="decoupled", cap=2.0)


def totals(policy: list[float], behavior: list[float], mask: list[bool] | None = None) -> LossTotals:
    batch = batch_of(behavior, [1.0] * len(policy), mask=mask)
    policy_T = torch.tensor(policy)
    step = objective(policy_T, batch, reference_T=None, beta=0.0, loss=LossSettings(), correction=CORRECTION)
    return sums(
        step,
        batch,
        policy_T,
        loss=LossSettings(),
        correction=CORRECTION,
        entropy_T=torch.arange(1.0, len(policy) + 1),
        certainty_T=torch.full((len(policy),), 3.0),
    )


def test_means_and_maxima_by_hand() -> None:
    # log old - log mu: 1, -1, and one behind the mask; rho = e is cut at 2
    found = report(totals([-1.0, -1.0, -1.0], [-2.0, 0.0, -9.0], [True, True, False]))
    assert found["loss/num_tokens"] == 2
    assert found["correction/w_mean"] == pytest.approx((2 + math.exp(-1)) / 2)
    assert found["correction/w_max"] == pytest.approx(2)
    assert found["correction/truncated_frac"] == 0.5
    assert found["mismatch/abs_log_ratio_mean"] == pytest.approx(1)
    assert found["mismatch/abs_log_ratio_max"] == pytest.approx(1)
    assert found["mismatch/abs_log_ratio_p99"] == pytest.approx(1, rel=0.034)
    assert found["policy/entropy"] == pytest.approx(1.5)
    assert found["policy/self_certainty"] == pytest.approx(3)
    assert found["loss/total"] == pytest.approx(-(2 + math.exp(-1)) / 2)


def test_maxima_of_parts_are_not_added() -> None:
    policy, behavior = [-1.0, -1.5, -0.2, -3.0], [-1.1, -1.0, -0.9, -2.0]
    parts = totals(policy[:2], behavior[:2]) + totals(policy[2:], behavior[2:])
    found, full = report(parts), report(totals(policy, behavior))
    for name in ("correction/w_max", "mismatch/abs_log_ratio_max", "mismatch/abs_log_ratio_p99", "mismatch/k3"):
        assert found[name] == pytest.approx(full[name])
    assert found["mismatch/abs_log_ratio_max"] == pytest.approx(1.0)


def test_a_micro_batch_without_loss_tokens_adds_nothing() -> None:
    tokens = totals([-1.0, -2.0], [-1.5, -1.0])
    empty = batch_of([0.0], [1.0], mask=[True])
    empty.mask_T[:] = False
    step = objective(torch.zeros(1), empty, reference_T=None, beta=0.0, loss=LossSettings(), correction=CORRECTION)
    nothing = sums(step, empty, torch.zeros(1), loss=LossSettings(), correction=CORRECTION)
    assert report(tokens + nothing) == report(tokens)
