"""A sweep on real Ray Tune: killed in the middle and continued; a trial that collapses and impossible points are reported."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.more.cluster import environment, small

pytestmark = pytest.mark.timeout(600)

PATIENCE_S = 240
GOOD, BAD = "lr-0.0001_max-1_seed-0", "lr-0.05_max-1_seed-0"


def command() -> list[str]:
    """Two real trials, one after the other; the second, at a ruinous learning rate, collapses after some updates."""
    keys = small(
        rollout__cpus_per_actor=0.5, learner__cpus_per_rank=1, train__updates=12, eval__num_questions=8, eval__samples=2
    )
    swept = ["--over", "train.lr=0.0001,0.05", "--over", "staleness.max=0,1", "--staleness.pipeline-depth", "1"]
    alarm = ["--collapse.patience", "2", "--collapse.no-answer-frac", "0.95", "--collapse.truncated-frac", "None"]
    alarm += ["--collapse.repetition-frac", "None", "--checkpoint.every-updates", "1"]
    return [sys.executable, "-m", "corewarding.launch.cli", "sweep", "cpu", *keys, *swept, *alarm]


def record(folder: Path, trial: str) -> dict[str, str]:
    path = folder / "trials" / f"{trial}.json"
    return json.loads(path.read_text()) if path.is_file() else {"status": "not started"}


def updates(folder: Path, trial: str) -> list[int]:
    path = folder / trial / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [row["update"] for row in rows if row["kind"] == "update"]


def of_this_sweep(tmp_path: Path) -> list[psutil.Process]:
    """Processes that run in the test's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == tmp_path:
                found.append(process)
        except psutil.Error:
            continue
    return found


def killed_at_the_second_trial(tmp_path: Path, folder: Path) -> None:
    """Starts the sweep, and kills it when its second real trial has made an update."""
    with (tmp_path / "first").open("w") as out:
        first = subprocess.Popen(
            command(), cwd=tmp_path, env=environment(), stdout=out, stderr=out, start_new_session=True
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not updates(folder, BAD):
            told = (tmp_path / "first").read_text()
            assert first.poll() is None, told
            assert time.monotonic() < deadline, told
            time.sleep(0.05)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()


def test_a_killed_sweep_goes_on_and_reports_what_failed(tmp_path: Path) -> None:
    folder = tmp_path / "sweeps" / "cpu"
    killed_at_the_second_trial(tmp_path, folder)
    assert record(folder, GOOD)["status"] == "finished"
    assert record(folder, BAD)["status"] == "running"
    gone = psutil.wait_procs(of_this_sweep(tmp_path), timeout=PATIENCE_S)
    assert gone[1] == [], "the program of a trial outlives its sweep"
    before = (folder / GOOD / "metrics.jsonl").stat().st_mtime_ns
    saved = max(int(path.name.removeprefix("step-")) for path in (folder / BAD / "checkpoints").glob("step-*"))

    again = subprocess.run(command(), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    told = again.stdout + again.stderr
    assert again.returncode == 0, told
    assert (folder / GOOD / "metrics.jsonl").stat().st_mtime_ns == before
    assert f"after update {saved}" in (folder / "trials" / f"{BAD}.log").read_text()
    made = updates(folder, BAD)
    assert made == list(range(1, len(made) + 1))
    assert record(folder, BAD)["status"] == "collapsed", told
    assert "collapse.no_answer_frac" in record(folder, BAD)["reason"]
    for lr in ("0.0001", "0.05"):
        name = f"lr-{lr}_max-0_seed-0"
        assert record(folder, name)["status"] == "impossible"
        assert f"{name} impossible: this point: staleness.pipeline_depth must be at most" in told
    assert f"corewarding train {folder / 'config.yaml'} train.lr=0.0001 staleness.max=1\n" in told
    assert "Traceback" not in told
    assert (folder / "front.png").is_file()
    assert [row["chosen"] for row in json.loads((folder / "results.json").read_text())].count(True) == 1
