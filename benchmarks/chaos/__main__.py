"""Hurts an asynchronous run on the CPU in every phase of every process, and counts what breaks a promise.

    python -m benchmarks.chaos [--faults 60] [--seed 0] [--state runs/chaos] [--part MINUTES]

Each fault gets a small run of its own (benchmarks/chaos/trial.py). A phase is known by an event of the run: a line of the driver's
log, or the call that Ray shows in the learner's title. Results are kept in the folder --state; the same command goes on with the
faults that are left, for --part minutes (30). The last line is the tally over all; the exit code is 1 if any promise was broken.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.chaos.faults import IMPOSSIBLE, drawn
from benchmarks.chaos.trial import attempt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, default=Path("runs/chaos"))
    parser.add_argument("--part", type=float, default=30.0, help="minutes; at least one fault is tried")
    arguments = parser.parse_args()
    faults = [None, *drawn(arguments.faults, arguments.seed)]
    arguments.state.mkdir(parents=True, exist_ok=True)
    results, began = arguments.state / "results.jsonl", time.monotonic()
    for number in range(len(_read(results)), len(faults)):
        result = {"number": number} | attempt(faults[number], (arguments.state / f"fault-{number:03d}").absolute())
        with results.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(_line(result), flush=True)
        if time.monotonic() - began > 60 * arguments.part:
            break
    return _tally(_read(results), len(faults))


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _line(result: dict[str, Any]) -> str:
    broken = ", ".join(f"{name} {num}" for name, num in result["violations"].items()) or "holds"
    hit = "" if result["hit"] or not result["number"] else "; the run ended before the phase came"
    codes = f"exit {result['code']}" + (f", resumed {result['resumed']}" if result["resumed"] is not None else "")
    return f"{result['number']:3} {result['fault']}: {codes}, {result['seconds']} s: {broken}{hit}"


def _tally(results: list[dict[str, Any]], total: int) -> int:
    """Prints the sums; returns the exit code."""
    for (target, phase), why in IMPOSSIBLE.items():
        print(f"impossible: {target} in {phase}: {why}")
    plain, hurt = results[:1], [result for result in results[1:] if result["hit"]]
    broken: Counter[str] = sum((Counter(result["violations"]) for result in results), Counter())
    known = [result["accuracy"] for result in hurt if result["accuracy"] is not None]
    if known and plain[0]["accuracy"] is not None:
        spread = statistics.stdev(known) if len(known) > 1 else 0.0
        print(
            f"accuracy: undisturbed {plain[0]['accuracy']:.3f}, with faults {statistics.mean(known):.3f} (spread {spread:.3f})"
        )
    goes_on = sum(result["code"] == 0 for result in hurt)
    words = ", ".join(f"{name} {num}" for name, num in broken.items()) or "0 violations"
    print(
        f"{len(hurt)} of {total - 1} faults: {goes_on} runs went on, {sum(result['resumed'] == 0 for result in hurt)} ended and "
        f"resumed, {len(results) - 1 - len(hurt)} ended before the phase came; {words}"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
