"""What trackers cost: a run with some beside a run with none.

    python -m benchmarks.report.cost [--trackers tensorboard wandb] [--pairs 9] [--window 60]

Two asynchronous runs of configs/cpu.yaml train at the same time on a core each, which they exchange in the middle of each of --pairs
windows of --window seconds; prints the ratios of their completions per second, and the median. Needs two cores. --trackers: those of
the one run, offline; several at once, or one to state its own cost.
"""

from __future__ import annotations

import argparse

from benchmarks import side_by_side

BAR = 0.98  # of the completions per second without a tracker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trackers", nargs="+", default=["tensorboard", "wandb"])
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--window", type=float, default=60.0)
    arguments = parser.parse_args()
    words = {"with": [f"report.trackers=[{','.join(arguments.trackers)}]"], "without": ["report.trackers=[]"]}
    found = side_by_side.ratios(words, windows=arguments.pairs, window_s=arguments.window)
    side_by_side.report(", ".join(arguments.trackers), found, BAR)


if __name__ == "__main__":
    main()
