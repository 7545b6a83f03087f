"""Compares forecasts with runs whose rates they do not know.

    python -m benchmarks.plan.against_runs [--updates 16] [--keep FOLDER] [--only NAME ...] [--key value ...]

Trains the recipe cpu five times, and before and after that twice with other settings to measure rates: a machine that becomes faster
or slower meanwhile is known at its mean speed. For each of the five it prints updates per second and mean staleness, forecast and
recorded. The learning rate is tiny, so every update has the same work. The last line is the largest deviation. Runs that exist under
--keep are not made again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from corewarding.launch.config.load import load_config
from corewarding.launch.plan.measured import WARM_UP, rates_of, recorded
from corewarding.launch.plan.speed import forecast

RATES = {
    "small": ["--train.questions-per-update", "20", "--staleness.max", "1"],
    "large": ["--train.questions-per-update", "40", "--staleness.max", "0"],
}
"""The runs whose rates are measured, once before the others and once after them."""
RUNS = {
    "recipe": ["--staleness.max", "4"],
    "synchronous": ["--staleness.max", "0"],
    "large groups": ["--train.questions-per-update", "16", "--rollout.group-size", "16", "--staleness.pipeline-depth", "2"],
    "no teacher": ["--rule", "majority_vote", "--train.questions-per-update", "48"],
    "deep": ["--train.questions-per-update", "24", "--engine.slots", "64", "--staleness.pipeline-depth", "3"],
}  # fmt: skip
"""The runs that are forecast."""
COMMON = [
    "--train.lr", "1e-9", "--eval.every-updates", "0", "--eval.num-questions", "1", "--checkpoint.every-updates", "0",
    "--run.sample-questions", "0",
]  # fmt: skip


def train(root: Path, name: str, words: list[str]) -> Path:
    """The folder of the run, which is made unless it exists."""
    folder = root / name.replace(" ", "-")
    if not (folder / "summary.json").exists():
        command = [sys.executable, "-m", "corewarding.launch.cli", "train", "cpu", *COMMON, *words]
        subprocess.run(
            [*command, "--run.root", str(root), "--run.name", folder.name], check=True, stdout=subprocess.DEVNULL
        )
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=16)
    parser.add_argument("--keep", type=Path, help="folder in which the runs' directories stay")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=[*RUNS], help="forecast these runs only")
    arguments, rest = parser.parse_known_args()
    root = (arguments.keep or Path(tempfile.mkdtemp())).resolve()
    cores = os.cpu_count() or 1
    words = ["--train.updates", str(arguments.updates), *rest]
    measured = [train(root, f"{name} before", [*its, *words]) for name, its in RATES.items()]
    folders = {name: train(root, name, [*RUNS[name], *words]) for name in arguments.only}
    measured += [train(root, f"{name} after", [*its, *words]) for name, its in RATES.items()]
    for moment, its in (("before", measured[: len(RATES)]), ("after", measured[len(RATES) :])):
        speeds = ", ".join(f"{recorded(folder).updates_per_s:.3f}" for folder in its)
        print(f"updates/s of the runs for the rates, {moment}: {speeds}")
    rates = rates_of(measured, cores=cores)
    print(
        f"rates: update {rates.update_s:.3f} s + {rates.token_s * 1e6:.0f} us a token; step {rates.step_s * 1e3:.2f} ms + "
        f"{rates.sequence_s * 1e6:.0f} us a sequence; publication {rates.publish_s * 1e3:.0f} ms\n"
    )
    print("| run | updates/s, forecast | recorded | deviation | staleness, forecast | recorded | deviation |")
    print("|---|---|---|---|---|---|---|")
    worst = 0.0
    for name, folder in folders.items():
        config = load_config(folder / "config.yaml")
        said, was = forecast(config, rates, cores=cores, updates=arguments.updates, warm_up=WARM_UP), recorded(folder)
        speed = said.updates_per_s / was.updates_per_s - 1
        age = (said.staleness_mean - was.staleness_mean) / max(was.staleness_mean, 0.1)
        worst = max(worst, abs(speed), abs(age))
        print(
            f"| {name} | {said.updates_per_s:.3f} | {was.updates_per_s:.3f} | {speed:+.1%} | {said.staleness_mean:.2f} | "
            f"{was.staleness_mean:.2f} | {age:+.1%} |",
            flush=True,
        )
    print(f"\n{worst:.1%}")


if __name__ == "__main__":
    main()
