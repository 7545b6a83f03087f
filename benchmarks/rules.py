"""Trains all reward rules on the arithmetic world, and draws their learning curves.

    python -m benchmarks.rules [--seeds 0 1 2] [--rules ...] [--updates N] [--record FILE.json] [--plot FILE.png]

Trains each rule from the recipe `cpu` for each seed, one run after another, and prints the medians over the seeds. Skips runs that
exist under --root, so an interrupted benchmark can continue. --record adds the curves to a file; `--rules --record FILE --plot PNG`
draws a recorded file and trains nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from corewarding.rewards.rules.table import REWARD_RULES

COLUMNS = ("mean@8", "maj@8", "greedy")
CURVE = "reward/policy_accuracy_frac"
"""Right answers among the policy's completions of an update's questions, which were never trained on before (4,096 questions, 1,280
used). Only a diagnostic: it reads answers, and no reward does."""
SMOOTHING = 3  # updates


def run(rule: str, seed: int, root: Path, extra: list[str]) -> dict[str, Any]:
    """The summary and the curve of one run, which the ordinary command trains if needed."""
    name = f"{rule}-seed{seed}"
    summary = root / name / "summary.json"
    if not summary.exists():
        words = ["--rule", rule, "--train.seed", str(seed), "--run.root", str(root), "--run.name", name]
        words += ["--eval.num-questions", "512", *extra]
        subprocess.run([sys.executable, "-m", "corewarding.launch.cli", "train", "cpu", *words], check=True)
    content: dict[str, Any] = json.loads(summary.read_text())
    rows = map(json.loads, (root / name / "metrics.jsonl").read_text().splitlines())
    return content | {"curve": [row[CURVE] for row in rows if row["kind"] == "update"]}


def row_of(rule: str, runs: list[dict[str, Any]]) -> str:
    """One line of the table: medians over the seeds."""
    after = [one["after"] for one in runs]
    cells = [
        rule,
        str(len(runs)),
        str(sum(one["labels_read"] for one in runs)),
        f"{statistics.median(one['before']['mean@8'] for one in runs):.3f}",
        *(f"{statistics.median(one[key] for one in after):.3f}" for key in COLUMNS),
        " ".join(f"{one['mean@8']:.3f}" for one in after),
        f"{statistics.median(one['completions_per_s'] for one in runs):.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def plot(recorded: dict[str, Any], path: Path) -> None:
    """Draws every rule's curve, the mean over its seeds; the legend has the held-out accuracy after training."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    figure, axis = plt.subplots(figsize=(10, 4.6), layout="constrained")
    baselines = itertools.cycle(f"C{index}" for index in (1, 4, 9, 5, 6, 7, 8))  # without blue, green and red
    bold = {"co_rewarding_i": "#0b6e4f", "co_rewarding_ii": "#1f4e9c", "co_rewarding_iii": "#b3001b"}
    for rule, one in sorted(recorded.items(), key=lambda item: -item[1]["after"]):
        curve = np.asarray(one["curves"]).mean(axis=0)
        smooth = np.convolve(np.pad(curve, SMOOTHING // 2, mode="edge"), np.ones(SMOOTHING) / SMOOTHING, mode="valid")
        style: dict[str, Any] = (
            {"color": bold[rule], "lw": 2.4} if rule in bold else {"lw": 1.5, "color": next(baselines)}
        )
        if rule == "ground_truth":
            style = {"color": "black", "lw": 1.8, "ls": "--"}
        label = f"{rule}  {one['after']:.3f}" + (" (reads answers)" if one["labels_read"] else "")
        axis.plot(range(1, len(smooth) + 1), smooth, label=label, **style)
    axis.set(xlabel="update", ylabel="right completions of new questions", ylim=(0, 1), xlim=(1, None))
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, title="rule, held-out mean@8 after training")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rules", nargs="*", default=list(REWARD_RULES), choices=list(REWARD_RULES))
    parser.add_argument("--root", type=Path, default=Path("runs/rules"))
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--record", type=Path, help="JSON file of curves, to which these rules are added")
    parser.add_argument("--plot", type=Path, help="PNG to draw from the record")
    arguments, rest = parser.parse_known_args()
    extra = ["--train.updates", str(arguments.updates), *rest]
    print(f"| rule | seeds | labels read | before mean@8 | {' | '.join(COLUMNS)} | mean@8 by seed | completions/s |")
    print("|---|---|---|---|" + "---|" * len(COLUMNS) + "---|---|")
    kept = arguments.record is not None and arguments.record.exists()
    recorded: dict[str, Any] = json.loads(arguments.record.read_text()) if kept else {}
    table = []
    for rule in arguments.rules:
        runs = [run(rule, seed, arguments.root.resolve(), extra) for seed in arguments.seeds]
        table.append(row_of(rule, runs))
        recorded[rule] = {
            "seeds": arguments.seeds,
            "labels_read": sum(one["labels_read"] for one in runs),
            "before": statistics.median(one["before"]["mean@8"] for one in runs),
            "after": statistics.median(one["after"]["mean@8"] for one in runs),
            "curves": [[round(value, 4) for value in one["curve"]] for one in runs],
        }
    print("\n".join(table))
    if arguments.record is not None:
        lines = ",\n".join(f"{json.dumps(rule)}: {json.dumps(one)}" for rule, one in sorted(recorded.items()))
        arguments.record.write_text(f"{{\n{lines}\n}}\n")
    if arguments.plot is not None:
        plot(recorded, arguments.plot)


if __name__ == "__main__":
    main()
