"""Each alert rule fires on a real run that is made to stall, collapse, idle or wait, and none on a healthy one.

A real Prometheus scrapes the runs. The rules are the shipped ones with seconds for minutes, so that nothing waits for ten of them.
"""

import re
import signal
import time
from pathlib import Path

import pytest
import yaml

from tests.more.cluster import ROOT, free_port
from tests.more.report.prometheus import Prometheus, needs, prometheus
from tests.more.runs import Run, started

pytestmark = [pytest.mark.timeout(600), needs]
FILE = ROOT / "docs" / "grafana" / "alerts.yaml"
SECONDS = {"10m": "20s", "5m": "5s", "1m": "2s"}
HEALTHY_S = 25.0
"""Longer than any rule waits."""
PATIENCE_S = 120.0
LONG = {
    "train__updates": 100_000,
    "data__num_train": 4096,
    "rollout__group_size": 8,
    "rollout__max_new_tokens": 32,
    "train__questions_per_update": 8,
    "run__watchdog_s": 300,
    "report__trackers": "prometheus",
}


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The shipped rules with shorter windows."""
    content = yaml.safe_load(FILE.read_text())
    for rule in content["groups"][0]["rules"]:
        rule["expr"] = re.sub(r"\b(10m|5m|1m)\b", lambda found: SECONDS[found[0]], rule["expr"])
        if "for" in rule:
            rule["for"] = SECONDS[rule["for"]]
    path = tmp_path / "alerts.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def firing(of: Prometheus, run: str) -> set[str]:
    """Names of the alerts of a run that fire now."""
    found = of.asks("query", query=f'ALERTS{{alertstate="firing", run="{run}"}}')
    return {one["metric"]["alertname"] for one in found}


def until_fires(of: Prometheus, run: Run, name: str, wanted: set[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not wanted <= (found := firing(of, name)):
        assert run.driver.poll() is None, run.text()[-3000:]
        assert time.monotonic() < deadline, f"{found} fire, not {wanted}"
        time.sleep(0.5)


def test_none_fires_on_a_healthy_run_until_it_stalls(tmp_path: Path, rules: Path) -> None:
    port = free_port()
    with (
        prometheus(tmp_path, [port], [rules]) as found,
        started(tmp_path, **LONG, report__prometheus_port=port, run__name="healthy") as run,
    ):
        run.until(lambda: len(found.asks("query", query="ray_corewarding_update > 5")) == 1)
        began = time.monotonic()
        while time.monotonic() < began + HEALTHY_S:
            assert firing(found, "healthy") == set()
            time.sleep(0.5)
        run.send(signal.SIGSTOP, "ray::LearnerActor")
        until_fires(found, run, "healthy", {"RunStalls"})
        time.sleep(HEALTHY_S)
        assert firing(found, "healthy") == {"RunStalls"}  # for as long as it lasts


@pytest.mark.parametrize(
    ("name", "keys", "wanted"),
    [
        ("starved", {"engine__slots": 1, "rule": "majority_vote"}, {"LearnerIdles"}),
        (
            "collapsing",  # and its learner, which takes one sample at a time, is two updates behind
            {"rule": "entropy", "train__lr": 3e-3, "staleness__max": 2, "staleness__pipeline_depth": 2}
            | {"learner__micro_batch_tokens": 64, "learner__row_tokens": 64},
            {"RunCollapses", "StalenessAtBound"},
        ),
    ],
)
def test_a_sick_run_fires_its_alert(
    tmp_path: Path, rules: Path, name: str, keys: dict[str, object], wanted: set[str]
) -> None:
    port = free_port()
    with (
        prometheus(tmp_path, [port], [rules]) as found,
        started(tmp_path, **LONG, **keys, report__prometheus_port=port, run__name=name) as run,
    ):
        run.until(lambda: len(found.asks("query", query="ray_corewarding_update > 0")) == 1)
        until_fires(found, run, name, wanted)
