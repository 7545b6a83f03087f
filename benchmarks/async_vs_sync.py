"""Compares asynchronous and synchronous training.

    python -m benchmarks.async_vs_sync [--rounds 2] [--updates 14] [--recipe] [--key value ...]

Both arms run configs/cpu.yaml in turns from the same weights, with engines on core 0 and the learner on core 1. The learning rate is
tiny, so every update has the same work. In the synchronous arm, the wait for a batch is the time of generation and the update is the
time of training. Generation should take about half, which slots for all completions of an update achieve here; --recipe keeps the
recipe's slots and depth. The first updates of each run are a warm-up and not counted. Prints the ratio of completions per second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

WARM_UP = 4
ARMS = {"synchronous": ["--staleness.max", "0"], "asynchronous": ["--staleness.max", "4"]}
BALANCED = {
    "synchronous": ["--engine.slots", "256"],
    "asynchronous": ["--engine.slots", "256", "--staleness.pipeline-depth", "2"],
}
COMMON = [
    "--engine.cores", "0", "--learner.cores", "1", "--train.lr", "1e-9", "--eval.every-updates", "0", "--eval.num-questions", "1",
    "--checkpoint.every-updates", "0", "--run.sample-questions", "0",
]  # fmt: skip


def run(root: Path, name: str, words: list[str]) -> list[dict[str, float]]:
    """The update rows of one run."""
    command = [
        sys.executable,
        "-m",
        "corewarding.launch.cli",
        "train",
        "configs/cpu.yaml",
        "--run.root",
        str(root),
        "--run.name",
        name,
        *words,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (root / name / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "update"]


def phases(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    """Seconds of each phase of every update after the warm-up."""
    found: dict[str, list[float]] = {"whole": [], "waiting": [], "training": [], "publishing": []}
    for before, row in zip(rows[WARM_UP - 1 :], rows[WARM_UP:], strict=False):
        found["whole"].append(row["time/update_ended_s"] - before["time/update_ended_s"])
        found["waiting"].append(row["time/learner_wait_s"])
        found["training"].append(row["time/update_s"])
        found["publishing"].append(before["time/publish_s"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--updates", type=int, default=14)
    parser.add_argument("--recipe", action="store_true", help="the recipe's own slots and pipeline depth")
    parser.add_argument("--keep", type=Path, help="folder in which the runs' directories stay")
    arguments, rest = parser.parse_known_args()
    root = (arguments.keep or Path(tempfile.mkdtemp())).resolve()
    times: dict[str, dict[str, list[float]]] = {arm: {} for arm in ARMS}
    samples = 0.0
    for round_ in range(arguments.rounds):
        for arm, bounds in ARMS.items():
            words = bounds if arguments.recipe else [*bounds, *BALANCED[arm]]
            rows = run(root, f"{arm}-{round_}", [*COMMON, "--train.updates", str(arguments.updates), *words, *rest])
            samples = rows[-1]["train/num_samples"]
            for phase, values in phases(rows).items():
                times[arm].setdefault(phase, []).extend(values)
    median = {
        arm: {phase: statistics.median(values) for phase, values in found.items()} for arm, found in times.items()
    }
    print(
        f"median seconds per update of {samples:.0f} samples, {len(times['synchronous']['whole'])} updates of each arm\n"
    )
    print("| | whole update | waiting | training | publishing | trained completions/s |\n|---|---|---|---|---|---|")
    for arm, values in median.items():
        cells = " | ".join(f"{values[phase]:.3f}" for phase in ("whole", "waiting", "training", "publishing"))
        print(f"| {arm} | {cells} | {samples / values['whole']:.1f} |")
    sync, later = median["synchronous"], median["asynchronous"]
    generation, training = sync["waiting"], sync["training"]
    print(f"\ngeneration is {generation / sync['whole']:.0%} of the synchronous update")
    print(f"synchronous update / sum of its phases: {sync['whole'] / (generation + training + sync['publishing']):.3f}")
    print(f"asynchronous update / max(generation, training): {later['whole'] / max(generation, training):.3f}")
    print(f"{sync['whole'] / later['whole']:.2f}x")


if __name__ == "__main__":
    main()
