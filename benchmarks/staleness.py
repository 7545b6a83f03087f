"""Sweeps staleness bound and correction on the arithmetic world.

    python -m benchmarks.staleness [--bounds 0 1 2 4 8] [--seeds 0] [--key value ...]

Trains configs/cpu.yaml once for each pair and seed. `staleness.pipeline_depth` equals the bound, so the pipeline fills up to it.
Prints a row for each pair: age of the trained tokens, throughput, mismatch and held-out accuracy (medians over updates, means over
seeds). Draws --plot. Skips runs that exist under --root, so an interrupted sweep can continue.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

CORRECTIONS = ("none", "bypass", "decoupled")
METRICS = ("staleness/token_mean", "mismatch/k3", "correction/ess_frac", "time/learner_wait_s")


def run(bound: int, correction: str, seed: int, root: Path, extra: list[str]) -> dict[str, float]:
    """The numbers of one run, which the ordinary command trains if needed."""
    name = f"max{bound}-{correction}-seed{seed}"
    folder = root / name
    if not (folder / "summary.json").exists():
        words = [
            *("--staleness.max", str(bound), "--staleness.pipeline-depth", str(bound), "--correction.mode", correction),
            *("--train.seed", str(seed), "--run.root", str(root), "--run.name", name, "--eval.num-questions", "512"),
            *extra,
        ]
        subprocess.run(
            [sys.executable, "-m", "corewarding.launch.cli", "train", "configs/cpu.yaml", *words], check=True
        )
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["kind"] == "update"]
    found = {key: statistics.median(row[key] for row in rows[len(rows) // 4 :]) for key in METRICS if key in rows[-1]}
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    found |= {"completions/s": summary["completions_per_s"], "max": max(row["staleness/max"] for row in rows)}
    return found | {"before": summary["before"]["mean@8"], "mean@8": summary["after"]["mean@8"]}


def plot(table: dict[tuple[int, str], dict[str, float]], bounds: list[int], path: Path) -> None:
    """Three panels over the bound: accuracy, mismatch, throughput."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    for axis, key, title in zip(
        axes,
        ("mean@8", "mismatch/k3", "completions/s"),
        ("held-out mean@8 after training", "mismatch k3 (policy to behavior)", "trained completions per second"),
        strict=True,
    ):
        for correction in CORRECTIONS:
            values = [table[bound, correction][key] for bound in bounds]
            shown = [math.nan if key == "mismatch/k3" and value <= 0 else value for value in values]  # no logarithm
            axis.plot(range(len(bounds)), shown, marker="o", label=correction)
        axis.set_xticks(range(len(bounds)), [str(bound) for bound in bounds])
        axis.set(title=title, xlabel="staleness.max = pipeline_depth")
    axes[1].set_yscale("log")
    axes[0].legend(title="correction.mode")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bounds", type=int, nargs="+", default=[0, 1, 2, 4, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--root", type=Path, default=Path("runs/staleness"))
    parser.add_argument("--plot", type=Path, help="PNG to draw")
    arguments, rest = parser.parse_known_args()
    table: dict[tuple[int, str], dict[str, float]] = {}
    for bound in arguments.bounds:
        for correction in CORRECTIONS:
            runs = [run(bound, correction, seed, arguments.root.resolve(), rest) for seed in arguments.seeds]
            table[bound, correction] = {key: statistics.fmean(one[key] for one in runs) for key in runs[0]}
    print("| max = depth | correction | token age, mean | question age, max | completions/s | mismatch k3 | mean@8 |")
    print("|---|---|---|---|---|---|---|")
    for (bound, correction), row in table.items():
        print(
            f"| {bound} | {correction} | {row['staleness/token_mean']:.2f} | {row['max']:.0f} | {row['completions/s']:.1f} | "
            f"{row['mismatch/k3']:.2e} | {row['mean@8']:.3f} |"
        )
    if arguments.plot is not None:
        plot(table, arguments.bounds, arguments.plot)


if __name__ == "__main__":
    main()
