"""Two sweeps on the arithmetic world: one that is killed in the middle and continued, and one in which trials break.

    python -m benchmarks.tuning.sweep [--root FOLDER] [--updates 40] [--broken-updates 12] [--only killed|broken] [--key value ...]

`killed`: configs/cpu.yaml over staleness.max 0, 4 and correction.mode decoupled, bypass with seeds 0, 1. The sweep is killed (SIGKILL)
when half of its trials have finished, and continued by the same command. Checks that no finished trial was trained again. Eight trials
of 40 updates take about 25 minutes on two cores: each run needs both.

`broken`: the rule `entropy` over train.lr 0.001, at which it collapses by update 5 or so, and 1e-6, and staleness.pipeline_depth 1 and
9, which is more than staleness.max. Checks that the collapse and the impossible points are reported with their reasons, and that the
trial after them finishes.

Both print their tables, and are checked for picture, HParams and the line that trains the chosen point.
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

KILLED = ("--over", "staleness.max=0,4", "--over", "correction.mode=decoupled,bypass", "--seeds", "2")
NUM_TRIALS = 8
BROKEN = ("--rule", "entropy", "--over", "train.lr=0.001,1e-6", "--over", "staleness.pipeline_depth=1,9")
EXPECTED = {
    "lr-0.001_pipeline_depth-1_seed-0": ("collapsed", "collapse."),
    "lr-0.001_pipeline_depth-9_seed-0": (
        "impossible",
        "staleness.pipeline_depth must be at most staleness.max = 4, got 9",
    ),
    "lr-1e-6_pipeline_depth-1_seed-0": ("finished", ""),
    "lr-1e-6_pipeline_depth-9_seed-0": (
        "impossible",
        "staleness.pipeline_depth must be at most staleness.max = 4, got 9",
    ),
}
"""Of each trial of `broken`: how it ends, and what its reason says."""


def command_of(folder: Path, updates: int, swept: tuple[str, ...], rest: list[str]) -> list[str]:
    words = [
        "sweep",
        "cpu",
        "--train.updates",
        str(updates),
        *swept,
        "--root",
        str(folder.parent),
        "--name",
        folder.name,
    ]
    return [sys.executable, "-m", "corewarding.launch.cli", *words, *rest]


def records(folder: Path) -> dict[str, dict[str, str]]:
    """What became of each trial, by its name."""
    return {path.stem: json.loads(path.read_text()) for path in (folder / "trials").glob("*.json")}


def finished(folder: Path) -> dict[str, int]:
    """Of each finished trial, when its metrics were written last, in ns."""
    names = [name for name, record in records(folder).items() if record["status"] == "finished"]
    return {name: (folder / name / "metrics.jsonl").stat().st_mtime_ns for name in names}


def to_the_end(command: list[str]) -> str:
    """Runs the sweep, shows what it prints, and returns it. Ends the program if the sweep fails."""
    said = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sweep:
        for line in sweep.stdout or ():
            print(line, end="", flush=True)
            said.append(line)
    if sweep.returncode:
        sys.exit(f"the sweep ended with exit code {sweep.returncode}")
    return "".join(said)


def lacking(folder: Path, said: str) -> list[str]:
    """What a finished sweep should have left, and has not."""
    rows = {path.parent.parent.name for path in folder.glob("*/tensorboard/events.*.sweep")}
    checks = {
        "the table": " points (* front, o chosen" in said,
        "the picture": (folder / "front.png").is_file(),
        "the axes of HParams": any(folder.glob("events.*.sweep")),
        "a row in HParams of each finished trial": rows >= finished(folder).keys(),
        "the line that trains the chosen point": f"corewarding train {folder / 'config.yaml'} " in said,
    }
    return [f"{folder.name}: {what} is missing" for what, there in checks.items() if not there]


def killed(folder: Path, updates: int, rest: list[str]) -> list[str]:
    """Kills a sweep in the middle and continues it; returns what is wrong."""
    command = command_of(folder, updates, KILLED, rest)
    began = time.monotonic()
    first = subprocess.Popen(command, start_new_session=True)
    while len(finished(folder)) < NUM_TRIALS // 2 and first.poll() is None:
        time.sleep(1.0)
    if first.poll() is None:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    before = finished(folder)
    print(f"killed after {time.monotonic() - began:.0f} s, with {len(before)} of {NUM_TRIALS} trials finished")
    said = to_the_end(command)
    after = finished(folder)
    repeated = [name for name, written in before.items() if after.get(name) != written]
    took = f"{time.monotonic() - began:.0f} s"
    print(f"{len(after)} of {NUM_TRIALS} trials finished after {took}; trained again: {repeated or 'none'}")
    wrong = [f"{name} was trained again" for name in repeated]
    wrong += [f"only {len(after)} of {NUM_TRIALS} trials finished"] if len(after) < NUM_TRIALS else []
    return wrong + lacking(folder, said)


def broken(folder: Path, updates: int, rest: list[str]) -> list[str]:
    """A sweep with a trial that collapses and points that are impossible; returns what is wrong."""
    said = to_the_end(command_of(folder, updates, BROKEN, rest))
    found, wrong = records(folder), []
    for name, (status, reason) in EXPECTED.items():
        record = found.get(name, {"status": "not started", "reason": ""})
        print(f"{name}: {record['status']} {record['reason'].partition(chr(10))[0]}".rstrip())
        if record["status"] != status or reason not in record["reason"]:
            wrong.append(f"{name} should be {status} with {reason!r}, and is {record['status']}: {record['reason']}")
        if status != "finished" and f"{name} {status}: " not in said:
            wrong.append(f"the end of the sweep does not say that {name} is {status}")
    return wrong + lacking(folder, said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("sweeps"))
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--broken-updates", type=int, default=12)
    parser.add_argument("--only", choices=("killed", "broken"))
    arguments, rest = parser.parse_known_args()
    root, wrong = arguments.root.resolve(), []
    if arguments.only != "broken":
        wrong += killed(root / "two-by-two", arguments.updates, rest)
    if arguments.only != "killed":
        wrong += broken(root / "broken", arguments.broken_updates, rest)
    print("\n".join(wrong) if wrong else "all checks passed")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
