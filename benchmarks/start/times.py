"""How long until a newcomer sees something: the first update of `corewarding train cpu`, and the whole of its dry run.

    python -m benchmarks.start.times [--rounds 5]

In turns. The first update counts from the start of the command to its line in metrics.jsonl, with everything before it: Ray, the
model in three processes, the evaluation before training. Then the run is interrupted. Prints seconds, and the CPU seconds of all
processes of the dry run, which other work on the machine changes less. The last line has the medians.
"""

from __future__ import annotations

import argparse
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = [sys.executable, "-m", "corewarding.launch.cli", "train", "cpu"]
LIMIT_S, PAUSE_S = 300.0, 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    firsts, dry = [], []
    for number in range(parser.parse_args().rounds):
        root = Path(tempfile.mkdtemp(prefix="start-"))
        firsts.append(first_update(root))
        wall, cpu = dry_run(root)
        dry.append(wall)
        print(
            f"round {number + 1}: first update {firsts[-1]:.1f} s, dry run {wall:.1f} s (CPU {cpu:.1f} s)", flush=True
        )
    print(f"median: first update {statistics.median(firsts):.1f} s, dry run {statistics.median(dry):.1f} s")


def first_update(root: Path) -> float:
    """Seconds until the first update of a run is written down."""
    began = time.monotonic()
    words = ["--run.root", str(root), "--run.name", "first"]
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        log = root / "first" / "metrics.jsonl"
        while not (log.exists() and '"kind": "update"' in log.read_text()):
            if run.poll() is not None or time.monotonic() - began > LIMIT_S:
                run.kill()
                raise SystemExit(f"the run made no update within {LIMIT_S:.0f} s, see {root / 'first'}")
            time.sleep(PAUSE_S)
        seconds = time.monotonic() - began
        run.send_signal(signal.SIGINT)
    return seconds


def dry_run(root: Path) -> tuple[float, float]:
    """Seconds of a dry run, and the CPU seconds of it and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    words = ["--dry-run", "--run.root", str(root), "--run.name", "dry"]
    subprocess.run([*COMMAND, *words], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
