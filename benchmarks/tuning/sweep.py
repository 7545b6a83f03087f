"""A sweep of 2 x 2 points with 2 seeds on the arithmetic world, killed in the middle and continued.

    python -m benchmarks.tuning.sweep [--root FOLDER] [--updates 40] [--key value ...]

Sweeps configs/cpu.yaml over staleness.max 0, 4 and correction.mode decoupled, bypass with seeds 0, 1. The sweep is killed (SIGKILL)
when half of its trials have finished, and continued by the same command. Prints its table, and checks that no finished trial was
trained again. Eight trials of 40 updates take about 25 minutes on two cores: each run needs both.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SWEPT = ("--over", "staleness.max=0,4", "--over", "correction.mode=decoupled,bypass", "--seeds", "2")
NUM_TRIALS = 8


def finished(folder: Path) -> dict[str, int]:
    """Of each finished trial, when its metrics were written last, in ns."""
    records = {path.stem: json.loads(path.read_text()) for path in (folder / "trials").glob("*.json")}
    return {
        name: (folder / name / "metrics.jsonl").stat().st_mtime_ns
        for name, record in records.items()
        if record["status"] == "finished"
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("sweeps"))
    parser.add_argument("--updates", type=int, default=40)
    arguments, rest = parser.parse_known_args()
    folder = arguments.root.resolve() / "two-by-two"
    words = ["sweep", "cpu", "--train.updates", str(arguments.updates), *SWEPT, "--root", str(folder.parent)]
    command = [sys.executable, "-m", "corewarding.launch.cli", *words, "--name", folder.name, *rest]
    began = time.monotonic()
    first = subprocess.Popen(command, start_new_session=True)
    while len(finished(folder)) < NUM_TRIALS // 2 and first.poll() is None:
        time.sleep(1.0)
    if first.poll() is None:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    before = finished(folder)
    print(f"killed after {time.monotonic() - began:.0f} s, with {len(before)} of {NUM_TRIALS} trials finished")
    subprocess.run(command, check=True)
    after = finished(folder)
    repeated = [name for name, written in before.items() if after.get(name) != written]
    print(
        f"{len(after)} of {NUM_TRIALS} trials finished after {time.monotonic() - began:.0f} s; trained again: {repeated or 'none'}"
    )
    sys.exit(1 if repeated or len(after) < NUM_TRIALS else 0)


if __name__ == "__main__":
    main()
