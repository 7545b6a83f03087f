"""Trains all reward rules on the arithmetic world.

    python -m benchmarks.rules [--seeds 0 1 2] [--rules ...] [--updates N]

Trains each rule from configs/cpu.yaml for each seed, one run after another, and prints the medians over the seeds. Skips runs that
exist under --root, so an interrupted benchmark can continue.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from corewarding.rewards.rules.table import REWARD_RULES

COLUMNS = ("mean@8", "maj@8", "greedy")


def run(rule: str, seed: int, root: Path, extra: list[str]) -> dict[str, object]:
    """The summary of one run, which the ordinary command trains if needed."""
    name = f"{rule}-seed{seed}"
    summary = root / name / "summary.json"
    if not summary.exists():
        words = ["--rule", rule, "--train.seed", str(seed), "--run.root", str(root), "--run.name", name, *extra]
        subprocess.run(
            [sys.executable, "-m", "corewarding.launch.cli", "train", "configs/cpu.yaml", *words], check=True
        )
    content: dict[str, object] = json.loads(summary.read_text())
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rules", nargs="+", default=list(REWARD_RULES), choices=list(REWARD_RULES))
    parser.add_argument("--root", type=Path, default=Path("runs/rules"))
    parser.add_argument("--updates", type=int, default=40)
    arguments, rest = parser.parse_known_args()
    extra = ["--train.updates", str(arguments.updates), *rest]
    print(f"| rule | seeds | labels read | before mean@8 | {' | '.join(COLUMNS)} | mean@8 by seed | completions/s |")
    print("|---|---|---|---|" + "---|" * len(COLUMNS) + "---|---|")
    table = []
    for rule in arguments.rules:
        runs = [run(rule, seed, arguments.root.resolve(), extra) for seed in arguments.seeds]
        after = [one["after"] for one in runs]
        medians = [statistics.median(one[key] for one in after) for key in COLUMNS]  # type: ignore[index]
        cells = [
            rule,
            str(len(runs)),
            str(sum(one["labels_read"] for one in runs)),  # type: ignore[misc]
            f"{statistics.median(one['before']['mean@8'] for one in runs):.3f}",  # type: ignore[index]
            *(f"{median:.3f}" for median in medians),
            " ".join(f"{one['mean@8']:.3f}" for one in after),  # type: ignore[index]
            f"{statistics.median(one['completions_per_s'] for one in runs):.1f}",  # type: ignore[type-var]
        ]
        table.append("| " + " | ".join(cells) + " |")
    print("\n".join(table))


if __name__ == "__main__":
    main()
