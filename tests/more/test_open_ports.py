"""What a run listens on and what it writes, read while it trains: no port is reachable from outside, no key is written."""

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import psutil
import pytest

from tests.more.cluster import ROOT, environment, small

MARK = "CW_TEST_PORTS"
PATIENCE_S = 240
Ports = dict[str, set[tuple[str, int]]]


def kind_of(process: psutil.Process) -> str:
    words = " ".join(process.cmdline())
    kinds = {
        "gcs_server": "GCS",
        "core/src/ray/raylet/raylet": "raylet",
        "ray::DashboardAgent": "dashboard agent",
        "dashboard/agent.py": "dashboard agent",
        "ray::RuntimeEnvAgent": "runtime-environment agent",
        "runtime_env/agent/main.py": "runtime-environment agent",
        "monitor.py": "monitor",
        "dashboard/dashboard.py": "dashboard",
        "ray::LearnerActor": "learner rank",
        "ray::PlacedRolloutActor": "rollout actor",
        "ray::BufferActor": "replay buffer",
        "ray::": "idle worker",
        "corewarding.launch.cli": "driver",
        "default_worker.py": "idle worker",
    }
    return next((kind for part, kind in kinds.items() if part in words), words)


def listening(mark: str) -> Ports:
    """Addresses on which the run's processes listen or receive, by kind of process."""
    found: Ports = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) != mark:
                continue
            for one in process.net_connections("inet"):
                if one.status == psutil.CONN_LISTEN or (one.status == psutil.CONN_NONE and not one.raddr):
                    found.setdefault(kind_of(process), set()).add(
                        (one.laddr.ip.removeprefix("::ffff:"), one.laddr.port)
                    )
        except psutil.Error:  # ended meanwhile
            continue
    return found


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """Of a run with two learner ranks, a policy and a teacher actor, once it has made an update."""
    folder, mark = tmp_path_factory.getbasetemp() / "ports", uuid.uuid4().hex
    folder.mkdir()
    (folder / "keys.yaml").write_text("base: cpu\nengine: {api_key: planted-in-a-file}\n")
    planted = {MARK: mark, "HF_TOKEN": "planted-in-the-environment"}
    words = small(learner__ranks=2, rollout__cpus_per_actor=0.2, train__updates=200, data__num_train=256)
    words += ["run.name=ports", "teacher_engine={api_key: planted-in-arguments}"]
    with (folder / "log").open("w") as log:
        driver = subprocess.Popen(
            [sys.executable, "-m", "corewarding.launch.cli", "train", "keys.yaml", *words],
            cwd=folder, env=environment() | planted, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        metrics, deadline = folder / "runs" / "ports" / "metrics.jsonl", time.monotonic() + PATIENCE_S
        while not (metrics.is_file() and '"kind": "update"' in metrics.read_text()):
            assert driver.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
            time.sleep(0.1)
        yield listening(mark)
    finally:
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == mark:
                    os.kill(process.pid, signal.SIGKILL)
            except (psutil.Error, ProcessLookupError):
                continue
        driver.wait(30)


def test_every_port_is_on_loopback_and_listed(ports: Ports) -> None:
    elsewhere = {kind: sorted(ip for ip, _ in found if ip not in ("127.0.0.1", "::1")) for kind, found in ports.items()}
    assert {kind: ips for kind, ips in elsewhere.items() if ips} == {}
    page = (ROOT / "docs" / "security.md").read_text()
    listed = set(re.findall(r"^\| ([\w -]+?) \| `127\.0\.0\.1`", page, re.MULTILINE))
    assert set(ports) <= listed
    assert {"GCS", "raylet", "driver", "learner rank", "rollout actor", "replay buffer"} <= set(ports)


def test_no_key_is_in_the_run_folder_or_on_the_terminal(ports: Ports, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "ports"
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("keys.yaml", "secrets.json")]
    assert {"log", "config.yaml", "environment.json", "metrics.jsonl"} <= {path.name for path in files}
    assert [path for path in files if b"planted-in" in path.read_bytes()] == []
    (kept,) = folder.rglob("secrets.json")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "planted-in-arguments" in kept.read_text()
