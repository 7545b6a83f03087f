"""The laws of docs/algorithm.md, and numbers worked out by hand."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from corewarding.dataflow.plugins import PluginError
from corewarding.learner.objective.corrections import correction_mode, interpolated_proximal
from corewarding.learner.objective.loss import (
    Objective,
    TokenBatch,
    clipped_surrogate,
    correct,
    low_variance_kl,
    objective,
)
from corewarding.learner.settings import CorrectionSettings, LossSettings

LOSS = LossSettings()


def batch_of(
    behavior: list[float],
    advantage: list[float],
    *,
    mask: list[bool] | None = None,
    age: list[float] | None = None,
    sequence: list[int] | None = None,
) -> TokenBatch:
    n = len(behavior)
    mask_T = torch.ones(n, dtype=torch.bool) if mask is None else torch.tensor(mask)
    sequence_T = torch.zeros(n, dtype=torch.long) if sequence is None else torch.tensor(sequence)
    return TokenBatch(
        behavior_T=torch.tensor(behavior),
        advantage_T=torch.tensor(advantage),
        mask_T=mask_T,
        weight_T=torch.full((n,), 1 / int(mask_T.sum())),
        age_T=torch.zeros(n) if age is None else torch.tensor(age),
        sequence_T=sequence_T,
        num_sequences=int(sequence_T.max()) + 1,
    )


def gradient(
    policy: list[float],
    batch: TokenBatch,
    *,
    mode: str = "decoupled",
    reference: list[float] | None = None,
    beta: float = 0.0,
    **correction: Any,
) -> tuple[Objective, Tensor]:
    policy_T = torch.tensor(policy, requires_grad=True)
    reference_T = None if reference is None else torch.tensor(reference)
    settings = CorrectionSettings(mode=mode, **correction)
    step = objective(policy_T, batch, reference_T=reference_T, beta=beta, loss=LOSS, correction=settings)
    step.loss.backward()
    assert policy_T.grad is not None
    return step, policy_T.grad


@pytest.mark.parametrize("mode", ["decoupled", "bypass", "interpolated", "none"])
def test_on_policy_every_mode_is_reinforce(mode: str) -> None:
    policy = [-1.0, -0.5, -2.0]
    _, grad = gradient(policy, batch_of(policy, [1.0, -2.0, 0.5]), mode=mode)
    torch.testing.assert_close(grad, -torch.tensor([1.0, -2.0, 0.5]) / 3)


def test_decoupled_weights_by_hand() -> None:
    # rho = e^1 is cut at 2; rho = e^-1 stays; the gradient of ratio at 1 is A, so d loss = -w A / N
    _, grad = gradient([-1.0, -1.0], batch_of([-2.0, 0.0], [1.0, 1.0]))
    torch.testing.assert_close(grad, -torch.tensor([2.0, math.exp(-1)]) / 2)


def test_bypass_clips_against_the_behavior_policy() -> None:
    # ratio e^1 > 1.2 with A > 0 is clipped: no gradient; ratio e^-1 < 0.8 with A > 0 is not: d = ratio
    _, grad = gradient([-1.0, -1.0], batch_of([-2.0, 0.0], [1.0, 1.0]), mode="bypass")
    torch.testing.assert_close(grad, -torch.tensor([0.0, math.exp(-1)]) / 2)


def test_dual_clip_bounds_the_surrogate_from_below() -> None:
    ratio, advantage = torch.tensor([5.0, 2.0]), torch.tensor([-1.0, -1.0])
    bounded = clipped_surrogate(ratio, advantage, eps_low=0.2, eps_high=0.2, dual_clip=3.0)
    torch.testing.assert_close(bounded, torch.tensor([-3.0, -2.0]))


def test_interpolation_by_age() -> None:
    proximal = interpolated_proximal(torch.full((3,), -1.0), torch.full((3,), -3.0), torch.tensor([0.0, 1.0, 4.0]))
    torch.testing.assert_close(proximal, torch.tensor([-3.0, -3.0, -1.5]))  # a = 0, 0, 3/4


def test_k3_by_hand_and_capped() -> None:
    kl = low_variance_kl(torch.tensor([-1.0, -10.0]), torch.tensor([-1.5, 0.0]))
    torch.testing.assert_close(kl, torch.tensor([math.exp(-0.5) - 0.5, 10.0]))


def test_garbage_behind_the_mask_changes_nothing() -> None:
    clean = batch_of([-1.0, -1.2, -0.3], [1.0, -1.0, 0.7], mask=[True, True, False])
    nan = float("nan")
    dirty = batch_of([-1.0, -1.2, nan], [1.0, -1.0, nan], mask=[True, True, False])
    one, g1 = gradient([-1.1, -1.0, -0.2], clean, reference=[-1.0, -1.0, -1.0], beta=0.1)
    two, g2 = gradient([-1.1, -1.0, nan], dirty, reference=[-1.0, -1.0, nan], beta=0.1)
    assert torch.equal(one.loss, two.loss)
    assert torch.equal(g1, g2)


def test_a_constant_on_log_mu_moves_only_the_weights() -> None:
    settings = CorrectionSettings(cap=100.0, veto=None)
    batch = batch_of([-1.0, -2.0], [1.0, -1.0])
    moved = dataclasses.replace(batch, behavior_T=batch.behavior_T - 0.3)
    policy = torch.tensor([-1.5, -1.5])
    a, b = correct(policy, batch, settings), correct(policy, moved, settings)
    torch.testing.assert_close(b.weight_T, a.weight_T * math.exp(0.3))
    assert torch.equal(a.proximal_T, b.proximal_T)
    assert torch.equal(a.keep_gain_T, b.keep_gain_T)


def test_rejections_by_hand() -> None:
    batch = batch_of([-1.0, -1.0, -1.0, -1.0], [1.0] * 4, sequence=[0, 0, 1, 1])
    policy = torch.tensor([-1.0, -12.0, -1.0, -1.0 + math.log(6)])
    vetoed = correct(policy, batch, CorrectionSettings())
    assert vetoed.keep_gain_T.tolist() == [False, False, True, True]  # e^-11 < 1e-4 masks its whole completion
    banded = correct(policy, batch, CorrectionSettings(veto=None, token_band=(0.5, 5.0)))
    assert banded.keep_gain_T.tolist() == [True, False, True, False]
    assert banded.keep_kl_T.all()  # the KL term stays
    assert banded.weight_T[0] == 1
    sequences = correct(policy, batch, CorrectionSettings(veto=None, sequence_band=(0.99, 1.01)))
    assert not sequences.keep_kl_T.any()  # exp(mean log rho) is e^-5.5 and sqrt(6)


@pytest.mark.usefixtures("fresh_tables")
def test_a_mode_of_the_users_own() -> None:
    @correction_mode("half")
    def half(policy_T: Tensor, behavior_T: Tensor, age_T: Tensor, *, cap: float) -> tuple[Tensor, Tensor]:
        return (policy_T + behavior_T) / 2, age_T / cap

    batch = batch_of([-1.0, -3.0], [1.0, 1.0], age=[1.0, 3.0])
    corrected = correct(torch.tensor([-2.0, -2.0]), batch, CorrectionSettings(mode="half", cap=2.0))
    assert corrected.proximal_T.tolist() == [-1.5, -2.5]
    assert corrected.weight_T.tolist() == [0.5, 1.5]
    correction_mode("broken")(lambda policy_T, behavior_T, age_T, *, cap: 1 / 0)
    with pytest.raises(
        PluginError, match=r"correction\.mode 'broken' failed: .*test_loss\.py line \d+: ZeroDivisionError"
    ):
        correct(torch.tensor([-2.0, -2.0]), batch, CorrectionSettings(mode="broken"))
