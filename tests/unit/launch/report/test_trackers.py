"""Trackers: each gets all of a run, and none can stop or delay it."""

import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from corewarding.launch.config.load import make_config
from corewarding.launch.report.trackers.kinds import missing
from corewarding.launch.report.trackers.process import ClientProcess
from corewarding.launch.report.trackers.threads import Trackers
from corewarding.launch.report.trackers.tracker import Report, RunFacts, flat
from corewarding.launch.run.preflight.early import PreflightError, check_early

HERE = "tests.unit.launch.report.test_trackers"


class Kept:
    """A tracker that keeps what it is told; `gate` is closed while it hangs."""

    def __init__(self, fails_at=None):
        self.told, self.gate, self.fails_at, self.abandoned = [], threading.Event(), fails_at, False
        self.gate.set()

    def start(self):
        self.told.append("start")

    def report(self, report):
        self.gate.wait()
        if report.update == self.fails_at:
            raise RuntimeError("no room on the server")
        self.told.append(report)

    def finish(self, summary):
        self.told.append(summary)

    def abandon(self):
        self.abandoned = True
        self.gate.set()


def report(update, **scalars):
    return Report(update=update, scalars={"reward/mean": update / 10} | scalars)


def test_reports_come_in_order_and_the_summary_last():
    kept, warned = Kept(), []
    trackers = Trackers({"kept": kept}, warned.append)
    for update in (1, 2, 3):
        trackers.report(report(update))
    trackers.finish({"updates": 3, "after": {"greedy": 0.5}})
    start, *reports, summary = kept.told
    assert (start, [one.update for one in reports], summary) == (
        "start",
        [1, 2, 3],
        {"updates": 3, "after.greedy": 0.5},
    )
    assert warned == []


@pytest.mark.parametrize(("every", "shown"), [(False, ["reward/mean"]), (True, ["correction/chi2", "reward/mean"])])
def test_scalars_beyond_the_default_are_shown_by_a_key(every, shown):
    kept = Kept()
    trackers = Trackers({"kept": kept}, print, every_scalar=every)
    trackers.report(
        Report(
            update=1, scalars={"reward/mean": 1.0, "correction/chi2": 0.0}, histograms={"staleness/label": np.empty(0)}
        )
    )
    trackers.finish({})
    assert sorted(kept.told[1].scalars) == shown
    assert kept.told[1].histograms == {}  # an empty one shows nothing


def test_a_tracker_that_raises_is_named_once_and_the_others_go_on():
    bad, good, warned = Kept(fails_at=1), Kept(), []
    trackers = Trackers({"bad": bad, "good": good}, warned.append)
    for update in (1, 2, 3):
        trackers.report(report(update))
    trackers.finish({})
    assert [one.update for one in good.told[1:-1]] == [1, 2, 3]
    assert bad.told == ["start"]
    assert warned == [
        "tracker bad failed (RuntimeError: no room on the server); the run goes on, and metrics.jsonl has everything"
    ]


def test_a_tracker_that_hangs_delays_nothing_and_is_named_once():
    """It hangs for the whole run; 500 updates, more than its queue has room for, pass at once."""
    kept, warned = Kept(), []
    kept.gate.clear()
    trackers = Trackers({"kept": kept}, warned.append, slow_s=0.0, end_s=0.05)
    slowest = 0.0
    for update in range(500):
        began = time.perf_counter()
        trackers.report(report(update))
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 1
    trackers.finish({})
    assert kept.abandoned
    (named,) = warned
    assert named.startswith("tracker kept hangs")


def test_a_tracker_that_does_not_end_is_abandoned():
    kept, warned = Kept(), []
    kept.gate.clear()
    trackers = Trackers({"kept": kept}, warned.append, end_s=0.05)
    trackers.report(report(1))
    trackers.finish({"updates": 1})
    assert kept.abandoned
    assert warned == [
        "tracker kept has not ended within 0.05 s: its last reports are missing; the run goes on, and metrics.jsonl has everything"
    ]


class Files:
    """A client that writes what it is told; update 7 kills it, and 8 hangs it."""

    def __init__(self, run):
        self.file = run.folder / "told"
        self.file.write_text(f"{run.config['rule']}\n")
        print("noise")

    def report(self, report):
        if report.update == 7:
            raise SystemExit("the client gives up")
        if report.update == 8:
            threading.Event().wait()
        self.write(report.scalars)

    def finish(self, summary):
        self.write(summary)

    def write(self, what):
        with self.file.open("a") as file:
            file.write(f"{what}\n")


def facts(folder: Path) -> RunFacts:
    return RunFacts(name="a", project="p", folder=folder, config={"rule": "entropy"}, resumed_at=0, offline=True)


def test_a_client_in_its_own_process_is_told_everything(tmp_path):
    client = ClientProcess(f"{HERE}:Files", facts(tmp_path), tmp_path / "log")
    trackers = Trackers({"files": client}, pytest.fail, slow_s=120.0, end_s=120.0)
    trackers.report(report(1))
    trackers.finish({"updates": 1})
    assert (tmp_path / "told").read_text().splitlines() == ["entropy", "{'reward/mean': 0.1}", "{'updates': 1}"]
    assert "noise" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("update", "named"), [(7, "failed (TrackerDiedError: the client gives up; more in"), (8, "has not ended")]
)
def test_a_client_that_dies_or_hangs_is_named_and_leaves_no_process(tmp_path, update, named):
    client, warned = ClientProcess(f"{HERE}:Files", facts(tmp_path), tmp_path / "log"), []
    trackers = Trackers({"files": client}, warned.append, end_s=120.0 if update == 7 else 2.0)
    trackers.report(report(update))
    trackers.finish({})
    assert len(warned) == 1
    assert named in warned[0]
    assert client.ended


def test_a_client_whose_run_was_killed_still_ends_the_run_there(tmp_path):
    client = ClientProcess(f"{HERE}:Files", facts(tmp_path), tmp_path / "log")
    client.start()
    client.report(report(1))
    client.forsake()
    assert (tmp_path / "told").read_text().splitlines()[-1] == "{}"


def test_a_tracker_that_is_not_installed_is_refused_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr("corewarding.launch.report.trackers.kinds.find_spec", lambda name: None)
    (message,) = missing(["tensorboard", "wandb"])
    assert message.startswith("report.trackers: wandb needs its client")
    assert "pip install 'corewarding[wandb]'" in message


def test_a_port_that_is_taken_is_refused_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        report = {"trackers": ["prometheus"], "prometheus_port": port}
        config = make_config({"report": report, "run": {"root": str(tmp_path)}}, where="test")
        with pytest.raises(PreflightError, match=rf"report\.prometheus_port {port}: .*; choose another"):
            check_early(config)


def test_a_tracker_that_does_not_exist_is_refused():
    with pytest.raises(Exception, match=r"report\.trackers"):
        make_config({"report": {"trackers": ["wandbs"]}}, where="test")


def test_nested_values_are_named_by_their_dotted_keys():
    assert flat({"a": 1, "b": {"c": None, "d": [1, 2]}}) == {"a": 1, "b.c": None, "b.d": "[1, 2]"}
