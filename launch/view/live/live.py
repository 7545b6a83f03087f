"""The content of the page "Run" for one run, JSON-ready: its state, alarms, curves, ages and lanes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from corewarding.dataflow.spans import now_s
from corewarding.launch.report.board.tags import UndeclaredTagError, tag
from corewarding.launch.report.run_directory import RunDir, RunDirError
from corewarding.launch.report.tables.runs import Status, status_of
from corewarding.launch.view.live.ages import Ages, strip
from corewarding.launch.view.live.alarms import collapse, ending, settings_of, unhealthy
from corewarding.launch.view.live.groups import SEED, group_name, grouped
from corewarding.launch.view.live.lanes import lanes_of, newest_spans
from corewarding.launch.view.live.numbers import Numbers, step_of
from corewarding.launch.view.live.panels import panels, shown
from corewarding.launch.view.run import ViewedRun

UPDATES = 6
"""Updates in the lanes, if the page does not say how many."""
MORE = 12
"""Most charts of metrics of plug-ins."""


class LiveRun:
    """Reads what is new at each call. Calls may come from several threads."""

    def __init__(self, run: ViewedRun) -> None:
        self.run = run
        self._numbers, self._ages = Numbers(run.run_dir.metrics), Ages()
        self._lock = threading.Lock()

    def content(self, *, updates: int = UPDATES, known: str = "") -> dict[str, Any]:
        """known: the `stamp` of an earlier answer; if nothing has changed since, the answer is the stamp alone."""
        with self._lock:
            run_dir = self.run.run_dir
            status = status_of(run_dir)  # before the numbers: those of a run that has ended are all there
            self._numbers.read()
            ages = self._ages.read(self.run.db)
            trace = run_dir.trace.stat().st_size if run_dir.trace.is_file() else 0
            stamp = "-".join(map(str, (status, self._numbers.place, trace, len(ages), updates)))
            if stamp == known:
                return {"stamp": stamp}
            return {"stamp": stamp} | self._content(status, ages, updates)

    def _content(self, status: Status, ages: dict[int, Counter[int]], updates: int) -> dict[str, Any]:
        run_dir, numbers = self.run.run_dir, self._numbers
        saved = saved_of(run_dir)
        settings, questions = settings_of(saved)
        raised, thresholds = collapse(numbers, settings, questions)
        planned = self.run.facts.updates
        step = step_of(max(planned or 0, numbers.last))
        train = saved.get("train")
        return {
            "name": self.run.name,
            "rule": self.run.facts.rule_name,
            "seed": train.get(SEED.partition(".")[2]) if isinstance(train, dict) else None,
            "status": status,
            "update": numbers.last,
            "planned": planned,
            "written_s": numbers.written_s,
            "read_s": now_s(),
            "follows": self.run.follows,
            "step": step,
            "alarms": [*ending(run_dir, status), *raised, *unhealthy(numbers, shown())],
            "thresholds": thresholds,
            "bounds": _bounds(saved),
            "curves": {name: curve for name in [*shown(), *self._others()] if (curve := numbers.curve(name, step))},
            "others": self._others(),
            "ages": strip(ages, step),
            "lanes": lanes_of(newest_spans(run_dir.trace), updates),
        }

    def _others(self) -> list[str]:
        """Metrics of plug-ins: no plug-in is loaded here, so nothing declares them."""
        return [name for name in self._numbers.names if not _is_declared(name)][:MORE]


def board(runs: Sequence[ViewedRun]) -> dict[str, Any]:
    """What the page shows of all runs alike: its panels, and which runs are one group."""
    groups = grouped({run.name: saved_of(run.run_dir) for run in runs})
    return {"panels": list(panels()), "groups": [{"name": group_name(names), "runs": names} for names in groups]}


def saved_of(run_dir: RunDir) -> dict[str, Any]:
    """The content of config.yaml; empty if there is none, or if it is garbled."""
    with suppress(RunDirError, FileNotFoundError):
        return run_dir.saved()
    return {}


def _bounds(saved: dict[str, Any]) -> dict[str, int]:
    """By tag the value of the key that bounds it, unless it changes during the run."""
    found = {}
    for name in shown():
        section, _, key = (tag(name).bound or "").partition(".")
        value = saved.get(section, {}).get(key) if isinstance(saved.get(section), dict) else None
        if isinstance(value, int) and f"{section}.{key}" not in (saved.get("schedules") or {}):
            found[name] = value
    return found


@lru_cache(maxsize=10_000)
def _is_declared(name: str) -> bool:
    try:
        tag(name)
    except UndeclaredTagError:
        return False
    return True
