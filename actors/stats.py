"""What one rollout actor reports about its engine, and how the reports of several actors are combined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from corewarding.actors.engine import EngineStats


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStats:
    """One actor's report."""

    sums: dict[str, float]  # counts and rates, added over actors
    means: dict[str, float]  # shares of time, averaged over actors


def stats_between(last: EngineStats, now: EngineStats, *, seconds: float) -> RolloutStats:
    """Rates and shares of the `seconds` between two readings; `tokens` since the engine's start."""
    busy, idle, swap = now.busy_s - last.busy_s, now.idle_s - last.idle_s, now.swap_s - last.swap_s
    total = max(busy + idle + swap, 1e-9)
    return RolloutStats(
        sums={
            "tokens": float(now.generated_tokens),
            "tokens_per_s": (now.generated_tokens - last.generated_tokens) / seconds,
            "prefill_tokens_per_s": (now.prefill_tokens - last.prefill_tokens) / seconds,
            "running": float(now.running),
            "queued": float(now.queued),
        },
        means={"busy_frac": busy / total, "idle_frac": idle / total, "swap_frac": swap / total},
    )


def combined(reports: Sequence[RolloutStats]) -> dict[str, float]:
    """The sums and means over all reports, by name; empty without reports."""
    return _added(report.sums for report in reports) | {
        name: value / len(reports) for name, value in _added(report.means for report in reports).items()
    }


def _added(values: Iterable[dict[str, float]]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for one in values:
        for name, value in one.items():
            totals[name] = totals.get(name, 0.0) + value
    return totals
