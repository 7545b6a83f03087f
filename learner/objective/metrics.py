"""Sums and maxima over loss tokens, and the numbers made of them once all micro-batches and ranks have added theirs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from corewarding.learner.objective.corrections import LOG_RATIO_LIMIT
from corewarding.learner.objective.loss import Objective, TokenBatch
from corewarding.learner.settings import CorrectionSettings, LossSettings

DRIFT_BINS = 512  # of |log old - log mu| over [0, 20], geometric: what p99 is read from
_SMALLEST_DRIFT = 1e-6


def sums(
    step: Objective, batch: TokenBatch, policy_T: Tensor, *, loss: LossSettings, correction: CorrectionSettings
) -> dict[str, Tensor]:
    """Scalars (and one histogram) that add up over micro-batches and ranks; keys that begin with max_ are maxima."""
    mask = batch.mask_T
    num = mask.sum()
    rho, w = step.correction.rho_T[mask].double(), step.correction.weight_T[mask].double()
    policy, behavior = policy_T.detach()[mask], batch.behavior_T[mask]
    proximal = step.correction.proximal_T[mask]
    drift = (proximal - behavior).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio, advantage = step.ratio_T.detach()[mask], batch.advantage_T[mask]
    zero = torch.zeros((), dtype=torch.float64, device=mask.device)
    return {
        "tokens": num.double(),
        "w": w.sum(),
        "w2": (w * w).sum(),
        "max_w": w.max() if num else zero,
        "truncated": (rho > correction.cap).sum().double(),
        "rho2": (rho * rho).sum(),
        "k3": (drift.exp() - drift - 1).double().sum(),
        "drift": drift.abs().double().sum(),
        "max_drift": drift.abs().max().double() if num else zero,
        "drift_bins": _drift_histogram(drift.abs()),
        "clip_high": ((ratio > 1 + loss.eps_high) & (advantage > 0)).sum().double(),
        "clip_low": ((ratio < 1 - loss.eps_low) & (advantage < 0)).sum().double(),
        "kl": step.kl_T.detach().double().sum(),
        "gain": step.gain_T.detach().double().sum(),
        "logprob": policy.double().sum(),
        "tokens_off_band": step.correction.off_band_T.sum().double(),
        "sequences_off_band": step.correction.off_band_S.sum().double(),
        "sequences_vetoed": step.correction.vetoed_S.sum().double(),
    }


def _drift_histogram(drift: Tensor) -> Tensor:
    span = math.log(LOG_RATIO_LIMIT / _SMALLEST_DRIFT)
    place = (drift.clamp(min=_SMALLEST_DRIFT).log() - math.log(_SMALLEST_DRIFT)) / span * (DRIFT_BINS - 1)
    return torch.bincount(place.long().clamp(0, DRIFT_BINS - 1), minlength=DRIFT_BINS).double()


def _p99(bins: Tensor) -> float:
    total = float(bins.sum())
    if total == 0:
        return 0.0
    place = int(torch.searchsorted(bins.cumsum(0), torch.tensor(0.99 * total, dtype=bins.dtype)))
    span = math.log(LOG_RATIO_LIMIT / _SMALLEST_DRIFT)
    upper = _SMALLEST_DRIFT * math.exp(span * (place + 1) / (DRIFT_BINS - 1))
    return 0.0 if place == 0 else upper


def report(total: dict[str, Tensor]) -> dict[str, float]:
    """The numbers of algorithm.md out of the reduced sums; p99 within 3.4% of its value (it is read off a histogram)."""
    n = max(float(total["tokens"]), 1.0)
    w, w2 = float(total["w"]), float(total["w2"])
    return {
        "correction/w_mean": w / n,
        "correction/w_max": float(total["max_w"]),
        "correction/truncated_frac": float(total["truncated"]) / n,
        "correction/ess_frac": w * w / (n * w2) if w2 else 0.0,
        "correction/chi2": float(total["rho2"]) / n - 1,
        "mismatch/k3": float(total["k3"]) / n,
        "mismatch/abs_log_ratio_mean": float(total["drift"]) / n,
        "mismatch/abs_log_ratio_p99": _p99(total["drift_bins"].cpu()),
        "mismatch/abs_log_ratio_max": float(total["max_drift"]),
        "loss/clip_high_frac": float(total["clip_high"]) / n,
        "loss/clip_low_frac": float(total["clip_low"]) / n,
        "loss/num_tokens": float(total["tokens"]),
        "kl/mean": float(total["kl"]) / n,
        "loss/gain": float(total["gain"]) / n,
        "policy/logprob": float(total["logprob"]) / n,
        "correction/num_tokens_off_band": float(total["tokens_off_band"]),
        "correction/num_sequences_off_band": float(total["sequences_off_band"]),
        "correction/num_sequences_vetoed": float(total["sequences_vetoed"]),
    }
