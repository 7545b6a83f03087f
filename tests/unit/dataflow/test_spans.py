"""The clock of a run: it never jumps, and the processes of one machine agree on it."""

import ast
import os
import subprocess
import sys
import time

import pytest

from corewarding.dataflow import spans
from corewarding.launch.config.paths import PACKAGE
from corewarding.launch.report.statistics import RunStatistics, UpdateTimes

WALL_CLOCK = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow")}


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_setting_the_wall_clock_changes_no_limit_no_rate_and_no_span(monkeypatch, jump_s) -> None:
    wall = time.time
    statistics = RunStatistics()
    statistics.start()
    began = spans.now_s()
    monkeypatch.setattr(time, "time", lambda: wall() + jump_s)
    time.sleep(0.01)
    ended = spans.now_s()
    statistics.updated(UpdateTimes(asked=began, began=began, ended=ended, published=ended), num_samples=8)
    statistics.stop()
    assert 0.01 <= ended - began < 60
    assert 0.01 <= statistics.elapsed_s < 60
    summary = statistics.summary()
    assert 8 / 60 < summary["completions_per_s"] <= 8 / 0.01
    assert 0 < summary["learner_update_s"] < 60


def test_the_clock_starts_at_the_wall_clock() -> None:
    assert spans.offset_s(None, "here") + time.monotonic() == pytest.approx(time.time(), abs=0.5)


def test_a_process_takes_over_the_clock_of_its_machine_and_no_other() -> None:
    assert spans.offset_s("here 12.5", "here") == 12.5
    assert spans.offset_s("there 12.5", "here") == pytest.approx(time.time() - time.monotonic(), abs=0.5)


def test_another_process_of_the_run_has_the_same_clock() -> None:
    machine, _ = spans.environment()[spans.OFFSET].split(" ")
    told = {spans.OFFSET: f"{machine} 1000.25"}
    code = "import time; from corewarding.dataflow.spans import now_s; print(now_s() - time.monotonic())"
    answer = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | told, capture_output=True, text=True, check=True
    )
    assert float(answer.stdout) == pytest.approx(1000.25, abs=0.01)


def test_nothing_else_reads_the_wall_clock() -> None:
    readers = set()
    for path in PACKAGE.glob("*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if (node.value.id, node.attr) in WALL_CLOCK:
                    readers.add(path.relative_to(PACKAGE).as_posix())
            elif isinstance(node, ast.ImportFrom) and node.module == "time" and "time" in {a.name for a in node.names}:
                readers.add(path.relative_to(PACKAGE).as_posix())
    assert readers == {"dataflow/spans.py"}
