"""What trackers cost: a run with some and a run with none, in turns.

    python -m benchmarks.report.cost [--trackers tensorboard wandb] [--pairs 9] [--updates 30]

Each pair is two asynchronous runs of configs/cpu.yaml, in changing order; prints the completions per second of both, and the median of
the ratios. --trackers: those of one run, offline; several at once, or one to state its own cost.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

BAR = 0.98  # of the completions per second without a tracker


def speed(root: Path, trackers: Sequence[str], updates: int) -> float:
    """Completions per second of one run."""
    name = "-".join(trackers) or "none"
    words = ["--run.root", str(root), "--run.name", name, f"report.trackers=[{','.join(trackers)}]"]
    words += ["--train.updates", str(updates), "--eval.num-questions", "4", "--eval.every-updates", "0"]
    command = [sys.executable, "-m", "corewarding.launch.cli", "train", "cpu", *words]
    subprocess.run(command, check=True, capture_output=True)
    summary = json.loads((root / name / "summary.json").read_text())
    return float(summary["completions_per_s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trackers", nargs="+", default=["tensorboard", "wandb"])
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--updates", type=int, default=30)
    arguments = parser.parse_args()
    ratios: list[float] = []
    for index in range(arguments.pairs):
        root = Path(tempfile.mkdtemp(prefix="report-"))
        order = ([], arguments.trackers) if index % 2 else (arguments.trackers, [])
        found = {bool(trackers): speed(root, trackers, arguments.updates) for trackers in order}
        ratios.append(found[True] / found[False])
        print(f"with {found[True]:.2f}, without {found[False]:.2f} completions/s: {ratios[-1]:.3f}", flush=True)
    median = statistics.median(ratios)
    verdict = "holds" if median >= BAR else "is missed"
    print(f"{', '.join(arguments.trackers)}: median of {len(ratios)} ratios {median:.3f}; the bar of {BAR} {verdict}")


if __name__ == "__main__":
    main()
