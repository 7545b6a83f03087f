"""The objective, as pure functions of tensors over the loss tokens of one micro-batch.

All token tensors have shape [T]: one entry per completion token, packed in any order; `sequence_T` says which completion a
token belongs to. Invariant: denominators come from outside and count the whole update, so cutting an update into
micro-batches or ranks changes nothing; and the values at a masked token, even NaN, change nothing.
Maths and sources: docs/algorithm.md, "Loss with importance correction".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corewarding.learner.objective.corrections import CORRECTION_MODES, log_ratio
from corewarding.learner.settings import CorrectionSettings, LossSettings

KL_LIMIT = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """The loss tokens of one micro-batch. S completions."""

    behavior_T: Tensor  # log mu, float32
    advantage_T: Tensor  # float32
    mask_T: Tensor  # bool: tokens that enter gain and KL
    weight_T: Tensor  # float32: 1 / N of the token's view (token_mean), or 1 / (length x completions); times the sample's weight
    age_T: Tensor  # float32: policy version - version that sampled the token
    sequence_T: Tensor  # int64 in [0, S)
    num_sequences: int


def clipped_surrogate(
    ratio_T: Tensor, advantage_T: Tensor, *, eps_low: float, eps_high: float, dual_clip: float | None
) -> Tensor:
    """[T] PPO's pessimistic surrogate (arXiv 1707.06347), with the dual clip for negative advantages (arXiv 1912.09729)."""
    clipped = ratio_T.clamp(1 - eps_low, 1 + eps_high)
    surrogate = torch.minimum(ratio_T * advantage_T, clipped * advantage_T)
    if dual_clip is None:
        return surrogate
    return torch.where(advantage_T < 0, torch.maximum(surrogate, dual_clip * advantage_T), surrogate)


def low_variance_kl(policy_T: Tensor, reference_T: Tensor) -> Tensor:
    """[T] k3 estimate of KL(policy || reference), at most 10 (http://joschu.net/blog/kl-approx.html)."""
    difference = log_ratio(reference_T, policy_T)
    return (difference.exp() - difference - 1).clamp(max=KL_LIMIT)


def sequence_mean(values_T: Tensor, mask_T: Tensor, sequence_T: Tensor, num_sequences: int) -> Tensor:
    """[S] mean over the unmasked tokens of each completion; 0 without such tokens."""
    zeros = values_T.new_zeros(num_sequences)
    total = zeros.index_add(0, sequence_T, torch.where(mask_T, values_T, 0.0))
    count = zeros.index_add(0, sequence_T, mask_T.to(values_T.dtype))
    return total / count.clamp(min=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """The result of importance correction for one micro-batch. No field carries a gradient."""

    proximal_T: Tensor  # log old
    weight_T: Tensor  # w
    keep_gain_T: Tensor  # bool
    keep_kl_T: Tensor  # bool
    rho_T: Tensor  # old / mu, untruncated
    vetoed_S: Tensor  # bool
    off_band_S: Tensor  # bool
    off_band_T: Tensor  # bool


def correct(policy_T: Tensor, batch: TokenBatch, settings: CorrectionSettings) -> Correction:
    """The proximal policy, the importance weights and the rejections for `correction.mode`."""
    policy, behavior, mask = policy_T.detach(), batch.behavior_T, batch.mask_T
    mode = CORRECTION_MODES[settings.mode]
    proximal, weight = (values.detach() for values in mode(policy, behavior, batch.age_T, cap=settings.cap))
    rho = log_ratio(proximal, behavior).exp()
    # Rejection always judges the policy against the behavior, whatever the mode.
    drift = torch.where(mask, log_ratio(policy, behavior), 0.0)
    off_token = torch.zeros_like(mask)
    if settings.token_band is not None:
        low, high = settings.token_band
        off_token = mask & ((drift.exp() < low) | (drift.exp() > high))
        weight = torch.where(off_token, 0.0, rho)
    vetoed = torch.zeros(batch.num_sequences, dtype=torch.bool, device=mask.device)
    off_band = vetoed
    if settings.veto is not None:
        low_tokens = (mask & (drift.exp() < settings.veto)).to(drift.dtype)
        vetoed = drift.new_zeros(batch.num_sequences).index_add(0, batch.sequence_T, low_tokens) > 0
    if settings.sequence_band is not None:
        low, high = settings.sequence_band
        mean = sequence_mean(drift, mask, batch.sequence_T, batch.num_sequences).exp()
        off_band = (mean < low) | (mean > high)
    keep = mask & ~(vetoed | off_band)[batch.sequence_T]
    return Correction(
        proximal_T=proximal,
        weight_T=weight,
        keep_gain_T=keep & ~off_token,
        keep_kl_T=keep,
        rho_T=rho,
        vetoed_S=vetoed,
        off_band_S=off_band,
        off_band_T=off_token,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The micro-batch's share of the update's loss, and the values that the metrics are computed from."""

    loss: Tensor  # scalar with gradient
    correction: Correction
    ratio_T: Tensor
    gain_T: Tensor
    kl_T: Tensor  # zeros without a reference


def objective(
    policy_T: Tensor,
    batch: TokenBatch,
    *,
    reference_T: Tensor | None,
    beta: float,
    loss: LossSettings,
    correction: CorrectionSettings,
) -> Objective:
    """`-sum_t weight_t (gain_t - beta kl_t)` over the micro-batch.

    policy_T: log pi with gradient. reference_T: log ref, or None for no KL term. The sum of the returned losses over all
    micro-batches and ranks is the loss of the update.
    """
    batch = _without_garbage(batch)
    policy = torch.where(batch.mask_T, policy_T, 0.0)  # where, not *: NaN times zero is NaN, also in the gradient
    corrected = correct(policy, batch, correction)
    ratio = log_ratio(policy, corrected.proximal_T).exp()
    surrogate = clipped_surrogate(
        ratio, batch.advantage_T, eps_low=loss.eps_low, eps_high=loss.eps_high, dual_clip=loss.dual_clip
    )
    gain = torch.where(corrected.keep_gain_T, corrected.weight_T * surrogate, 0.0)
    kl = torch.zeros_like(gain)
    if reference_T is not None and beta > 0:
        reference = torch.where(batch.mask_T, reference_T.detach(), 0.0)
        kl = torch.where(corrected.keep_kl_T, low_variance_kl(policy, reference), 0.0)
    total = -(batch.weight_T * (gain - beta * kl)).sum()
    return Objective(loss=total, correction=corrected, ratio_T=ratio, gain_T=gain, kl_T=kl)


def _without_garbage(batch: TokenBatch) -> TokenBatch:
    mask = batch.mask_T
    return TokenBatch(
        behavior_T=torch.where(mask, batch.behavior_T, 0.0),
        advantage_T=torch.where(mask, batch.advantage_T, 0.0),
        mask_T=mask,
        weight_T=torch.where(mask, batch.weight_T, 0.0),
        age_T=torch.where(mask, batch.age_T, 0.0),
        sequence_T=batch.sequence_T,
        num_sequences=batch.num_sequences,
    )
