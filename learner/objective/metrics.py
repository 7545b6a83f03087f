"""Totals over loss tokens, and the metrics made of them once all micro-batches and ranks have added theirs.

Each field of `LossTotals` says how it is reduced. A mean is a sum divided by the number of tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from corewarding.learner.objective.corrections import LOG_RATIO_LIMIT
from corewarding.learner.objective.loss import Objective, TokenBatch
from corewarding.learner.settings import CorrectionSettings, LossSettings

DRIFT_BINS = 512  # of |log old - log mu| over [0, 20], geometric: p99 is read from them
_SMALLEST_DRIFT = 1e-6

Reduction = Literal["sum", "max"]
_SUM: dict[str, Reduction] = {"reduction": "sum"}
_MAX: dict[str, Reduction] = {"reduction": "max"}
_OPERATIONS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}


@dataclass(frozen=True, slots=True, kw_only=True)
class LossTotals:
    """Scalars (and one histogram) in float64 over the loss tokens of one or more micro-batches."""

    loss: Tensor = field(metadata=_SUM)
    tokens: Tensor = field(metadata=_SUM)
    weight: Tensor = field(metadata=_SUM)
    weight_squared: Tensor = field(metadata=_SUM)
    weight_max: Tensor = field(metadata=_MAX)
    truncated: Tensor = field(metadata=_SUM)  # tokens whose ratio is over the cap
    rho_squared: Tensor = field(metadata=_SUM)
    k3: Tensor = field(metadata=_SUM)
    drift: Tensor = field(metadata=_SUM)  # |log old - log mu|
    drift_max: Tensor = field(metadata=_MAX)
    drift_bins: Tensor = field(metadata=_SUM)  # [DRIFT_BINS]
    clip_high: Tensor = field(metadata=_SUM)
    clip_low: Tensor = field(metadata=_SUM)
    kl: Tensor = field(metadata=_SUM)
    gain: Tensor = field(metadata=_SUM)
    logprob: Tensor = field(metadata=_SUM)
    entropy: Tensor = field(metadata=_SUM)
    self_certainty: Tensor = field(metadata=_SUM)
    tokens_off_band: Tensor = field(metadata=_SUM)
    sequences_off_band: Tensor = field(metadata=_SUM)
    sequences_vetoed: Tensor = field(metadata=_SUM)

    def __add__(self, other: LossTotals) -> LossTotals:
        """The totals of both sets of tokens."""
        joined = {}
        for one in fields(self):
            a, b = getattr(self, one.name), getattr(other, one.name)
            joined[one.name] = torch.maximum(a, b) if one.metadata["reduction"] == "max" else a + b
        return LossTotals(**joined)

    def over_ranks(self) -> LossTotals:
        """The totals of all ranks, on the CPU; one collective for the sums and one for the maxima."""
        reduced: dict[str, Tensor] = {}
        for reduction, operation in _OPERATIONS.items():
            values = {f.name: getattr(self, f.name) for f in fields(self) if f.metadata["reduction"] == reduction}
            flat = torch.cat([value.reshape(-1) for value in values.values()])
            dist.all_reduce(flat, op=operation)
            parts = flat.cpu().split([value.numel() for value in values.values()])
            reduced |= {
                name: part.reshape(value.shape) for (name, value), part in zip(values.items(), parts, strict=True)
            }
        return LossTotals(**reduced)


def sums(
    step: Objective,
    batch: TokenBatch,
    policy_T: Tensor,
    *,
    loss: LossSettings,
    correction: CorrectionSettings,
    entropy_T: Tensor | None = None,
    certainty_T: Tensor | None = None,
) -> LossTotals:
    """The totals of one micro-batch. Entropy and self-certainty are 0 where they are not given."""
    mask = batch.mask_T
    num = mask.sum()
    rho, w = step.correction.rho_T[mask].double(), step.correction.weight_T[mask].double()
    policy, behavior = policy_T.detach()[mask], batch.behavior_T[mask]
    proximal = step.correction.proximal_T[mask]
    drift = (proximal - behavior).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio, advantage = step.ratio_T.detach()[mask], batch.advantage_T[mask]
    zero = torch.zeros((), dtype=torch.float64, device=mask.device)
    return LossTotals(
        loss=step.loss.detach().double(),
        tokens=num.double(),
        weight=w.sum(),
        weight_squared=(w * w).sum(),
        weight_max=w.max() if num else zero,
        truncated=(rho > correction.cap).sum().double(),
        rho_squared=(rho * rho).sum(),
        k3=(drift.exp() - drift - 1).double().sum(),
        drift=drift.abs().double().sum(),
        drift_max=drift.abs().max().double() if num else zero,
        drift_bins=_drift_histogram(drift.abs()),
        clip_high=((ratio > 1 + loss.eps_high) & (advantage > 0)).sum().double(),
        clip_low=((ratio < 1 - loss.eps_low) & (advantage < 0)).sum().double(),
        kl=step.kl_T.detach().double().sum(),
        gain=step.gain_T.detach().double().sum(),
        logprob=policy.double().sum(),
        entropy=zero if entropy_T is None else entropy_T[mask].double().sum(),
        self_certainty=zero if certainty_T is None else certainty_T[mask].double().sum(),
        tokens_off_band=step.correction.off_band_T.sum().double(),
        sequences_off_band=step.correction.off_band_S.sum().double(),
        sequences_vetoed=step.correction.vetoed_S.sum().double(),
    )


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


def report(total: LossTotals) -> dict[str, float]:
    """The metrics of docs/algorithm.md; p99 is read off a histogram, so it is within 3.4% of its value."""
    n = max(float(total.tokens), 1.0)
    w, w2 = float(total.weight), float(total.weight_squared)
    return {
        "loss/total": float(total.loss),
        "correction/w_mean": w / n,
        "correction/w_max": float(total.weight_max),
        "correction/truncated_frac": float(total.truncated) / n,
        "correction/ess_frac": w * w / (n * w2) if w2 else 0.0,
        "correction/chi2": float(total.rho_squared) / n - 1,
        "mismatch/k3": float(total.k3) / n,
        "mismatch/abs_log_ratio_mean": float(total.drift) / n,
        "mismatch/abs_log_ratio_p99": _p99(total.drift_bins.cpu()),
        "mismatch/abs_log_ratio_max": float(total.drift_max),
        "loss/clip_high_frac": float(total.clip_high) / n,
        "loss/clip_low_frac": float(total.clip_low) / n,
        "loss/num_tokens": float(total.tokens),
        "kl/mean": float(total.kl) / n,
        "loss/gain": float(total.gain) / n,
        "policy/logprob": float(total.logprob) / n,
        "policy/entropy": float(total.entropy) / n,
        "policy/self_certainty": float(total.self_certainty) / n,
        "correction/num_tokens_off_band": float(total.tokens_off_band),
        "correction/num_sequences_off_band": float(total.sequences_off_band),
        "correction/num_sequences_vetoed": float(total.sequences_vetoed),
    }
