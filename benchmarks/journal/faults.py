"""An asynchronous run that is hurt five times, and rebuilt from its journal bit by bit.

    python -m benchmarks.journal.faults [--updates 40]

configs/cpu.yaml, made small, on two learner ranks: SIGKILL of the replay buffer, a learner rank, a rollout actor, the driver (the
same command then goes on) and the replay buffer once more. Prints how long the run needed for two more updates after each, and what
`corewarding replay` says; the exit code is 1 if a weight differs, a question was lost or trained twice, or the run did not end.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.more.cluster import environment
from tests.more.runs import Run, started

PER_UPDATE = 4


def keys(updates: int) -> dict[str, object]:
    return {
        "train__updates": updates,
        "train__questions_per_update": PER_UPDATE,
        "data__num_train": updates * PER_UPDATE,  # so each question is asked once
        "run__sample_questions": PER_UPDATE,
        "run__watchdog_s": 60,
        "rollout__silent_s": 6,
        "learner__ranks": 2,
        "checkpoint__every_updates": 10,
    }


def hurt(run: Run, title: str) -> float:
    """Kills one process; returns the seconds until two more updates were made."""
    done, began = len(run.updates()), time.monotonic()
    os.kill(run.pids(title)[-1], signal.SIGKILL)
    run.reaches(done + 2)
    return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=40)
    updates = parser.parse_args().updates
    root = Path(tempfile.mkdtemp(prefix="journal-"))
    with started(root, **keys(updates)) as run:
        for part, title in enumerate(("ray::BufferActor", "ray::LearnerActor", "ray::PlacedRolloutActor"), start=1):
            run.reaches(part * updates // 8)
            print(f"{title} killed: two more updates after {hurt(run, title):.1f} s", flush=True)
        run.reaches(updates // 2)
        run.driver.kill()
        run.driver.wait()
    began, done = time.monotonic(), len(run.updates())
    with started(root, **keys(updates)) as run:
        run.reaches(done + 2)
        print(f"driver killed: two more updates after {time.monotonic() - began:.1f} s", flush=True)
        run.reaches(3 * updates // 4)
        print(f"ray::BufferActor killed: two more updates after {hurt(run, 'ray::BufferActor'):.1f} s", flush=True)
        ended = run.driver.wait()
    trained = Counter(
        row["id"].rsplit("/", 3)[0]
        for path in sorted((run.folder / "samples").glob("update-*.jsonl"))
        for row in map(json.loads, path.read_text().splitlines())
    )
    lost, twice = updates * PER_UPDATE - len(trained), sum(num > 8 for num in trained.values())
    print(f"exit code {ended}; {lost} questions lost, {twice} trained twice")
    command = [sys.executable, "-m", "corewarding.launch.cli", "replay", str(run.folder)]
    replayed = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    print(replayed.stdout.splitlines()[-1])
    return int(bool(ended or lost or twice or replayed.returncode))


if __name__ == "__main__":
    sys.exit(main())
