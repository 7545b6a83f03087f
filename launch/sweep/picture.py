"""The picture of a sweep: accuracy over throughput, mismatch as colour, the front joined by a line, spreads as bars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corewarding.launch.sweep.results import Measured, PointResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

NEAR = 7
"""Points of typography between a point and its label."""
LINE = 11
"""The height of a label."""
LINES = 6
"""Lines above a point, and as many below, that its label tries before it stands over another one."""


def draw(results: Sequence[PointResult], at_front: Sequence[PointResult], best: PointResult | None, path: Path) -> None:
    """Writes the picture of all points with a result."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import LogNorm

    shown = [(result, mean) for result in results if (mean := result.mean) is not None]
    figure, axis = plt.subplots(figsize=(8.5, 5.2), layout="constrained")
    known = [mean.mismatch for _, mean in shown if mean.mismatch]
    norm = LogNorm(min(known), max(max(known), min(known) * 1.01)) if known else None
    for result, mean in shown:
        x, y = mean.throughput, mean.accuracy or 0.0
        bars: dict[str, Any] = {"xerr": result.spread("throughput"), "yerr": result.spread("accuracy")}
        axis.errorbar(x, y, **bars, color="0.7", capsize=2, zorder=1)
        colour: Any = [mean.mismatch] if mean.mismatch and norm is not None else "white"
        kind: dict[str, Any] = {"cmap": "viridis_r", "norm": norm} if not isinstance(colour, str) else {}
        ring: dict[str, Any] = (
            {"edgecolors": "tab:red", "linewidths": 2.2}
            if result is best
            else {"edgecolors": "black", "linewidths": 0.8}
        )
        axis.scatter(x, y, c=colour, s=90, zorder=3, **ring, **kind)
    line = sorted((mean.throughput, mean.accuracy or 0.0) for result, mean in shown if result in at_front)
    if line:
        axis.plot(*zip(*line, strict=True), color="tab:red", linewidth=1, linestyle="--", zorder=2, label="front")
        axis.legend(loc="best")
    axis.set(xlabel="trained completions per second", ylabel="held-out accuracy after training")
    axis.set_title("accuracy, throughput and mismatch; red ring: chosen, white: mismatch not measured", fontsize=10)
    axis.margins(x=0.15, y=0.12)
    if norm is not None:
        figure.colorbar(plt.cm.ScalarMappable(norm, "viridis_r"), ax=axis, label="mismatch k3 (policy to behavior)")
    figure.draw_without_rendering()  # the axes have their final places now
    label(axis, shown)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def label(axis: Axes, shown: Sequence[tuple[PointResult, Measured]]) -> list[Annotation]:
    """Writes the values of each point beside it, where no other label stands and inside the axes, if there is such a place."""
    frame = axis.get_window_extent()
    middle = sum(axis.get_xlim()) / 2
    placed: list[Bbox] = []
    written = []
    for result, mean in sorted(shown, key=lambda one: (-(one[1].accuracy or 0.0), one[1].throughput)):
        at = (mean.throughput, mean.accuracy or 0.0)
        text = axis.annotate(_words(result), at, (0, 0), textcoords="offset points", fontsize=8, zorder=4)
        box = text.get_window_extent()
        for x, y in _places(is_right=at[0] > middle):
            text.set_horizontalalignment("right" if x < 0 else "left")
            text.set_position((x, y))
            box = text.get_window_extent()
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in placed):
                break
        placed.append(box)
        written.append(text)
    return written


def _places(*, is_right: bool) -> Iterator[tuple[int, int]]:
    """Where a label may stand, from its point: near ones first, above before below, towards the middle before the edge."""
    sides = (-NEAR, NEAR) if is_right else (NEAR, -NEAR)
    for line in range(LINES):
        for height in (NEAR + LINE * line, -NEAR - LINE * (line + 1)):
            yield from ((side, height) for side in sides)


def _words(result: PointResult) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {text}" for key, text in result.point.items())
