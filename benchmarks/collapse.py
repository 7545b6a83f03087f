"""Replays finished runs through the collapse alarms: `python -m benchmarks.collapse RUN_DIR [RUN_DIR ...]`.

Reads every metrics.jsonl, with the alarms at their default thresholds, and prints for each rule how many runs raised which alarm and
when. A run is healthy if its held-out greedy accuracy fell by at most 0.05; an alarm in a healthy run is false. Runs come from
benchmarks/rules.py, benchmarks/staleness.py or `corewarding train`.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import yaml

from corewarding.rewards.collapse import SIGNALS, Alarm, CollapseAlarm
from corewarding.rewards.settings import CollapseSettings

FALL = 0.05


@dataclass(frozen=True)
class Replayed:
    """One run and its alarms."""

    name: str
    kind: str  # rule, and the correction mode if it is not the default
    healthy: bool
    updates: int
    alarms: list[Alarm]
    most: dict[str, float]  # highest value that each signal held for three updates in a row


def replay(folder: Path) -> Replayed | None:
    """Replays one run; None if it has fewer than two evaluations."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    greedy = {row["kind"]: row["greedy"] for row in rows if row["kind"].startswith("eval_")}
    if not {"eval_before", "eval_after"} <= greedy.keys():
        return None
    updates = [row for row in rows if row["kind"] == "update"]
    settings = CollapseSettings()
    alarm = CollapseAlarm(settings, questions_per_update=config["train"]["questions_per_update"])
    alarms = [raised for row in updates for raised in alarm.seen(row["update"], row)]
    most = {}
    for signal, metric in SIGNALS.items():
        values = [row[metric] for row in updates if metric in row]
        windows = zip(*(values[i:] for i in range(settings.patience)), strict=False)
        if values:
            most[signal] = max((min(window) for window in windows), default=0.0)
    mode = config["correction"]["mode"]
    return Replayed(
        name=folder.name,
        kind=config["rule"] + ("" if mode == "decoupled" else f", correction {mode}"),
        healthy=greedy["eval_after"] >= greedy["eval_before"] - FALL,
        updates=len(updates),
        alarms=alarms,
        most=most,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    folders = parser.parse_args().runs
    runs = [run for folder in folders if (folder / "metrics.jsonl").is_file() and (run := replay(folder))]
    groups: dict[tuple[str, bool], list[Replayed]] = defaultdict(list)
    for run in runs:
        groups[run.kind, run.healthy].append(run)
    print(f"| rule | runs | updates | runs with an alarm | first alarm at update | {' | '.join(SIGNALS)} (highest) |")
    print("|---|---|---|---|---|" + "---|" * len(SIGNALS))
    for (kind, healthy), group in sorted(groups.items(), key=lambda item: (not item[0][1], item[0][0])):
        raised = [run for run in group if run.alarms]
        first = ", ".join(f"{run.alarms[0].update} ({run.alarms[0].signal})" for run in raised)
        most = [
            max((run.most[signal] for run in group if signal in run.most), default=float("nan")) for signal in SIGNALS
        ]
        cells = [
            f"{kind}, {'healthy' if healthy else 'fallen'}",
            str(len(group)),
            str(sum(run.updates for run in group)),
            str(len(raised)),
            first or "-",
            *(f"{value:.2f}" for value in most),
        ]
        print("| " + " | ".join(cells) + " |")
    for healthy, what in ((True, "healthy runs with a false alarm"), (False, "fallen runs with an alarm")):
        chosen = [run for run in runs if run.healthy is healthy]
        print(f"{what}: {sum(bool(run.alarms) for run in chosen)} of {len(chosen)}")


if __name__ == "__main__":
    main()
