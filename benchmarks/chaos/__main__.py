"""Hurts an asynchronous run on the CPU in every phase of every process, and counts what breaks a promise.

    python -m benchmarks.chaos [--faults 60] [--seed 0] [--state runs/chaos] [--part MINUTES] [--at-once 1]

Each fault gets a small run of its own (benchmarks/chaos/trial.py). A phase is known by an event of the run: a line of the driver's
log, or the call that Ray shows in the learner's title. Results are kept in the folder --state; the same command goes on with the
faults that have none there, for --part minutes (30), --at-once runs beside each other. At the end the examples of each run are
compared with those of the undisturbed one (`corewarding journal A --diff B`): every difference has its reason. The last line is the
tally over all; the exit code is 1 if any promise was broken.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.chaos.faults import IMPOSSIBLE, RULE, Fault, drawn, rule_of
from benchmarks.chaos.trial import attempt
from corewarding.launch.report.journal.difference import KINDS, UNEXPLAINED, differences


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, default=Path("runs/chaos"))
    parser.add_argument("--part", type=float, default=30.0, help="minutes; at least one fault is tried")
    parser.add_argument("--at-once", type=int, default=1, help="runs beside each other; each takes about one core")
    arguments = parser.parse_args()
    faults = [None, *drawn(arguments.faults, arguments.seed)]
    arguments.state.mkdir(parents=True, exist_ok=True)
    results = arguments.state / "results.jsonl"
    done = {result["number"] for result in _read(results)}
    left = iter([(number, fault) for number, fault in enumerate(faults) if number not in done])
    until = time.monotonic() + 60 * arguments.part
    with ThreadPoolExecutor(arguments.at_once) as threads:
        for worker in [threads.submit(_try, left, arguments.state.absolute(), until) for _ in range(arguments.at_once)]:
            worker.result()
    every = sorted(_read(results), key=lambda result: result["number"])
    unexplained = _compare(
        [result["number"] for result in every if rule_of(faults[result["number"]]) == RULE], arguments.state
    )
    return _tally(every, len(faults), unexplained)


def _try(left: Iterator[tuple[int, Fault | None]], state: Path, until: float) -> None:
    """Tries one fault after the other and keeps the results, until this moment."""
    for number, fault in left:
        folder = state / f"fault-{number:03d}"
        shutil.rmtree(folder, ignore_errors=True)  # of a part that was interrupted
        result = {"number": number} | attempt(fault, folder)
        with (state / "results.jsonl").open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(_line(result), flush=True)
        if time.monotonic() > until:
            return


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _line(result: dict[str, Any]) -> str:
    broken = ", ".join(f"{name} {num}" for name, num in result["violations"].items()) or "holds"
    hit = "" if result["hit"] or not result["number"] else "; the run ended before the phase came"
    codes = f"exit {result['code']}" + (f", resumed {result['resumed']}" if result["resumed"] is not None else "")
    return f"{result['number']:3} {result['fault']}: {codes}, {result['seconds']} s: {broken}{hit}"


def _compare(numbers: list[int], state: Path) -> int:
    """Prints how the examples of these runs differ from those of run 0, and why; returns how many differences have no reason."""
    if 0 not in numbers:
        return 0
    journals = {number: next((state / f"fault-{number:03d}" / "runs").glob("*/journal")) for number in numbers}
    counts: Counter[tuple[str, str]] = Counter()
    for number in numbers:
        if number:
            counts.update((one.kind, one.reason or "") for one in differences(journals[number], journals[0]))
    print(f"examples of {len(numbers) - 1} runs beside those of the undisturbed run:")
    for (kind, reason), number in sorted(counts.items()):
        print(
            f"  {number:6} {KINDS[kind].format(run='the hurt run', other='the undisturbed run')}{reason and f': {reason}'}"
        )
    return sum(number for (_, reason), number in counts.items() if reason == UNEXPLAINED)


def _tally(results: list[dict[str, Any]], total: int, unexplained: int) -> int:
    """Prints the sums; returns the exit code."""
    for (target, phase), why in IMPOSSIBLE.items():
        print(f"impossible: {target} in {phase}: {why}")
    plain = [result for result in results if not result["number"]]
    hurt = [result for result in results if result["hit"]]
    broken: Counter[str] = sum((Counter(result["violations"]) for result in results), Counter())
    if unexplained:
        broken["differences without a reason"] = unexplained
    known = [result["accuracy"] for result in hurt if result["accuracy"] is not None]
    if known and plain and plain[0]["accuracy"] is not None:
        spread = statistics.stdev(known) if len(known) > 1 else 0.0
        print(
            f"accuracy: undisturbed {plain[0]['accuracy']:.3f}, with faults {statistics.mean(known):.3f} (spread {spread:.3f})"
        )
    goes_on = sum(result["code"] == 0 for result in hurt)
    words = ", ".join(f"{name} {num}" for name, num in broken.items()) or "0 violations"
    print(
        f"{len(hurt)} of {total - 1} faults: {goes_on} runs went on, {sum(result['resumed'] == 0 for result in hurt)} ended and "
        f"resumed, {len(results) - len(plain) - len(hurt)} ended before the phase came; {words}"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
