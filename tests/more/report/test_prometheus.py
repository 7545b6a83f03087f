"""A real Prometheus scrapes a run: every panel of the dashboard is answered. Each alert rule fires when it should, and only then."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from corewarding.launch.report.board.grafana import COMMAND, dashboard
from tests.more.cluster import ROOT, environment, free_port, small
from tests.more.report.prometheus import Prometheus, needs, prometheus

FILES = ROOT / "docs" / "grafana"


def test_the_dashboard_is_what_the_command_writes_and_each_panel_explains_itself():
    assert json.loads((FILES / "dashboard.json").read_text()) == dashboard(), f"run: {COMMAND}"
    panels = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
    assert all("Healthy:" in panel["description"] for panel in panels)


@needs
def test_every_panel_is_answered_by_a_prometheus_that_scraped_a_run(tmp_path):
    port = free_port()
    run = ["train", "cpu", *small(train__updates=1000, data__num_train=4096, eval__every_updates=2, run__root=tmp_path)]
    trackers = ["report.trackers=[prometheus]", f"report.prometheus_port={port}", "run.name=seen"]
    command = [sys.executable, "-m", "corewarding.launch.cli", *run, *trackers]
    began = time.time()
    with (
        prometheus(tmp_path, [port]) as found,
        (tmp_path / "said").open("w") as said,
        subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment(), cwd=ROOT) as training,
    ):
        try:
            while silent := unanswered(found, began):
                assert training.poll() is None, (tmp_path / "said").read_text()[-3000:]
                assert time.time() < began + 240, silent
                time.sleep(0.5)
        finally:
            training.send_signal(signal.SIGINT)
            training.wait(60)


def unanswered(of: Prometheus, began: float) -> list[str]:
    """Titles of the panels for which Prometheus has no number yet."""
    window = {"start": str(began), "end": str(time.time()), "step": "1"}
    panels = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
    return [
        panel["title"]
        for panel in panels
        if not any(
            of.asks("query_range", query=target["expr"].replace("$run", "seen"), **window)
            for target in panel["targets"]
        )
    ]


SICK = {
    "RunStalls": {"ray_corewarding_update": "7x30"},
    "RunCollapses": {"ray_corewarding_vote_top_answer_frac": "0.9x30"},
    "StalenessAtBound": {"ray_corewarding_staleness_max": "4x30", "ray_corewarding_staleness_bound": "4x30"},
    "LearnerIdles": {"ray_corewarding_time_learner_idle_frac": "0.8x30"},
}
HEALTHY = {
    "ray_corewarding_update": "1+3x30",
    "ray_corewarding_vote_top_answer_frac": "0.1x30",
    "ray_corewarding_vote_no_answer_frac": "0.19x30",
    "ray_corewarding_length_truncated_frac": "0x30",
    "ray_corewarding_length_repetition_mean": "0.01x30",
    "ray_corewarding_staleness_max": "1x30",
    "ray_corewarding_staleness_bound": "4x30",
    "ray_corewarding_time_learner_idle_frac": "0.05x30",
}


@needs
@pytest.mark.parametrize("sick", [None, *SICK])
def test_an_alert_fires_on_a_sick_run_and_none_on_a_healthy_one(tmp_path: Path, sick: str | None):
    numbers = HEALTHY | (SICK[sick] if sick else {})
    series = [{"series": f'{name}{{run="a"}}', "values": values} for name, values in numbers.items()]
    fires = [
        {"eval_time": "25m", "alertname": name, "exp_alerts": [] if name != sick else [{"exp_labels": {"run": "a"}}]}
        for name in SICK
    ]
    (tmp_path / "test.yaml").write_text(
        yaml.safe_dump({"rule_files": [str(tmp_path / "alerts.yaml")], "evaluation_interval": "1m", "tests": [
            {"interval": "1m", "input_series": series, "alert_rule_test": fires}]})
    )  # fmt: skip
    rules = yaml.safe_load((FILES / "alerts.yaml").read_text())
    for rule in rules["groups"][0]["rules"]:
        del rule["annotations"]  # promtool compares them word for word
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(rules))
    found = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "test.yaml")], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
