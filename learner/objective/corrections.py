"""Correction modes by name, as `correction.mode` selects them: the proximal policy and the importance weights.

To add a mode, write a function here and its row in CORRECTION_MODES; a plug-in uses `correction_mode`. The functions use only methods
of their tensors, so the names can be checked without torch. Maths and sources: docs/algorithm.md, "Loss with importance correction".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from corewarding.dataflow.plugins import guarded
from corewarding.dataflow.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

LOG_RATIO_LIMIT = 20.0


class CorrectionMode(Protocol):
    """All tensors are [T], without gradient: log pi, log mu, and the updates between the two."""

    def __call__(self, policy_T: Tensor, behavior_T: Tensor, age_T: Tensor, *, cap: float) -> tuple[Tensor, Tensor]:
        """(log old, w). cap: correction.cap."""
        ...


def log_ratio(numerator_T: Tensor, denominator_T: Tensor) -> Tensor:
    """[T] difference of logprobs, clamped to +-20."""
    return (numerator_T - denominator_T).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def truncated_importance_weights(proximal_T: Tensor, behavior_T: Tensor, *, cap: float) -> Tensor:
    """[T] correction for tokens sampled by older weights; carries no gradient (IMPALA, arXiv 1802.01561, 4.1)."""
    return log_ratio(proximal_T, behavior_T).detach().exp().clamp(max=cap)


def interpolated_proximal(policy_T: Tensor, behavior_T: Tensor, age_T: Tensor) -> Tensor:
    """[T] log old between behavior and policy; the older the token, the closer to the policy (A-3PO, arXiv 2512.06547)."""
    share = ((age_T - 1) / age_T.clamp(min=1)).clamp(min=0)
    return (1 - share) * behavior_T + share * policy_T.detach()


def decoupled(policy_T: Tensor, behavior_T: Tensor, age_T: Tensor, *, cap: float) -> tuple[Tensor, Tensor]:
    """Clips against the present policy; truncated weights correct for the sampler (arXiv 2110.00641)."""
    return policy_T, truncated_importance_weights(policy_T, behavior_T, cap=cap)


def bypass(policy_T: Tensor, behavior_T: Tensor, age_T: Tensor, *, cap: float) -> tuple[Tensor, Tensor]:
    """Clips against the sampler; no weights."""
    return behavior_T, behavior_T.new_ones(behavior_T.shape)


def interpolated(policy_T: Tensor, behavior_T: Tensor, age_T: Tensor, *, cap: float) -> tuple[Tensor, Tensor]:
    """Clips against a policy between the two; truncated weights correct for the rest."""
    proximal_T = interpolated_proximal(policy_T, behavior_T, age_T)
    return proximal_T, truncated_importance_weights(proximal_T, behavior_T, cap=cap)


def no_correction(policy_T: Tensor, behavior_T: Tensor, age_T: Tensor, *, cap: float) -> tuple[Tensor, Tensor]:
    """Clips against the present policy; no weights."""
    return policy_T, policy_T.new_ones(policy_T.shape)


CORRECTION_MODES: Registry[CorrectionMode] = Registry("correction.mode")
CORRECTION_MODES.register("decoupled", decoupled)
CORRECTION_MODES.register("bypass", bypass)
CORRECTION_MODES.register("interpolated", interpolated)
CORRECTION_MODES.register("none", no_correction)


def correction_mode(name: str) -> Callable[[CorrectionMode], CorrectionMode]:
    """Registers the decorated function as `correction.mode: name`. For plug-ins; the function comes back unchanged.

    The function is called once for each micro-batch, as CorrectionMode says; gradients of what it returns are dropped.
    """

    def register(mode: CorrectionMode) -> CorrectionMode:
        CORRECTION_MODES.register(name, guarded(mode, what=f"correction.mode {name!r}"), depth=2)
        return mode

    return register
