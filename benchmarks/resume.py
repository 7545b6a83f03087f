"""Checks that a killed and resumed run is bit-equal.

    python -m benchmarks.resume [--times 5] [--updates 6] [--key value ...]

Trains a small synchronous run of configs/cpu.yaml with `engine.deterministic` once without interruption. Then, --times times, kills
the same run (SIGKILL to all its processes) at a random moment between its first and last update and resumes it with the same command.
Prints each time whether all weights of the last checkpoint are bit-equal.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.numpy import load_file

SMALL = [
    "--staleness.max", "0", "--engine.deterministic", "--engine.slots", "64", "--data.num-train", "256",
    "--train.questions-per-update", "8", "--eval.every-updates", "0", "--eval.num-questions", "1", "--run.resume", "auto",
    "--checkpoint.every-updates", "1", "--checkpoint.keep", "2",
]  # fmt: skip


def start(root: Path, updates: int, extra: list[str]) -> subprocess.Popen[bytes]:
    """Starts the run as a user does, in its own process group."""
    words = [*SMALL, "--train.updates", str(updates), "--run.root", str(root), "--run.name", "run", *extra]
    command = [sys.executable, "-m", "corewarding.launch.cli", "train", "configs/cpu.yaml", *words]
    root.mkdir(parents=True, exist_ok=True)
    with (root / "log").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def finish(root: Path, updates: int, extra: list[str]) -> Path:
    """Starts or resumes the run, unless it had finished before it was killed. Returns the weights' file of the last checkpoint."""
    finished = (root / "run" / "summary.json").exists()
    if not finished and start(root, updates, extra).wait() != 0:
        raise SystemExit(f"the run in {root} failed:\n{(root / 'log').read_text()[-2000:]}")
    return root / "run" / "checkpoints" / f"step-{updates:06d}" / "model" / "model.safetensors"


def updates_done(root: Path) -> int:
    metrics = root / "run" / "metrics.jsonl"
    return metrics.read_text().count('"kind": "update"') if metrics.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    arguments, extra = parser.parse_known_args()
    draws = random.Random(arguments.seed)
    root = Path(tempfile.mkdtemp(prefix="resume-"))
    straight = load_file(finish(root / "straight", arguments.updates, extra))
    num_equal = 0
    for number in range(arguments.times):
        folder = root / f"killed-{number}"
        after, pause = draws.randrange(1, arguments.updates), draws.uniform(0.0, 1.0)
        run = start(folder, arguments.updates, extra)
        while updates_done(folder) < after:
            if run.poll() is not None:
                raise SystemExit(f"the run in {folder} ended by itself with {run.returncode}")
            time.sleep(0.01)
        time.sleep(pause)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        seen = updates_done(folder)
        resumed = load_file(finish(folder, arguments.updates, extra))
        equal = straight.keys() == resumed.keys() and all((straight[name] == resumed[name]).all() for name in straight)
        num_equal += equal
        print(
            f"killed {pause:.2f} s after update {after} ({seen} logged): {'equal' if equal else 'DIFFERENT'}",
            flush=True,
        )
    print(f"{num_equal} of {arguments.times} equal, bit for bit")


if __name__ == "__main__":
    main()
