"""What a run listens on and what it writes, read while it trains: no port is reachable from outside, no process answers who has no
token, no key is written."""

import contextlib
import http.client
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest

from tests.more.cluster import ROOT, environment, small

PATIENCE_S = 240
Address = tuple[str, int]
Ports = dict[str, set[Address]]
Request = tuple[str, Address, str]
"""Kind of process, address, and one of REQUESTS."""
REQUESTS = (
    "grpc ray.rpc.JobInfoGcsService/GetAllJobInfo",
    "grpc ray.rpc.NodeManagerService/GetNodeStats",
    "grpc ray.rpc.ObjectManagerService/Pull",
    "grpc ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "grpc ray.rpc.ReporterService/HealthCheck",
    "http /get_runtime_envs_info",
)
"""One harmless request to each of Ray's services; a process offers one or two of them."""
NUMBERS = (44217, 44227)
"""Ports of the monitor and the dashboard with counters of their own, for everyone on this machine; one Ray of a machine has them."""
ANSWERS = {"grpc OK", "http 200", "http 404"}
REFUSALS = {"grpc UNAUTHENTICATED", "http 401", "http 403"}


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


def processes(folder: Path) -> Iterator[psutil.Process]:
    """All processes of the run that was started in `folder`."""
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder.resolve()):
                yield process
        except psutil.Error:  # ended meanwhile
            continue


def listening(folder: Path) -> Ports:
    """Addresses on which the run's processes listen or receive, by kind of process."""
    found: Ports = {}
    for process in processes(folder):
        try:
            for one in process.net_connections("inet"):
                if one.status == psutil.CONN_LISTEN or (one.status == psutil.CONN_NONE and not one.raddr):
                    found.setdefault(kind_of(process), set()).add(
                        (one.laddr.ip.removeprefix("::ffff:"), one.laddr.port)
                    )
        except psutil.Error:  # ended meanwhile
            continue
    return found


def answer(address: Address, request: str, token: str) -> str:
    """What a port says to a request: `grpc` or `http` and a status; `none` if it does not speak that language."""
    (ip, port), (language, path) = address, request.split()
    authorization = f"Bearer {token}" if token else ""
    if language == "grpc":
        with grpc.insecure_channel(f"{ip}:{port}") as channel:
            words = (("authorization", authorization),) if token else ()
            try:
                channel.unary_unary(f"/{path}")(b"", timeout=3, metadata=words)
                return "grpc OK"
            except grpc.RpcError as error:
                code = error.code().name  # type: ignore[attr-defined]
                return "none" if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED") else f"grpc {code}"
    headers = {"Authorization": authorization} if token else {}
    asked = urllib.request.Request(f"http://{ip}:{port}{path}", data=b"", headers=headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=3) as said:
            return f"http {said.status}"
    except urllib.error.HTTPError as error:
        return f"http {error.code}"
    except (OSError, http.client.HTTPException):
        return "none"


def answers(asked: list[Request], token: str) -> list[str]:
    with ThreadPoolExecutor(32) as threads:
        return list(threads.map(lambda one: answer(*one[1:], token), asked))


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """Of a run with two learner ranks, a policy and a teacher actor, once it has made an update."""
    folder = tmp_path_factory.getbasetemp() / "ports"
    folder.mkdir()
    (folder / "keys.yaml").write_text("base: cpu\nengine: {api_key: planted-in-a-file}\n")
    planted = {"HF_TOKEN": "planted-in-the-environment"}
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
        yield listening(folder)
    finally:
        for process in processes(folder):
            with contextlib.suppress(psutil.Error):
                process.kill()
        driver.wait(30)


def test_every_port_is_on_loopback_and_listed(ports: Ports) -> None:
    elsewhere = {kind: sorted(ip for ip, _ in found if ip not in ("127.0.0.1", "::1")) for kind, found in ports.items()}
    assert {kind: ips for kind, ips in elsewhere.items() if ips} == {}
    page = (ROOT / "docs" / "security.md").read_text()
    listed = set(re.findall(r"^\| ([\w -]+?) \| `127\.0\.0\.1`", page, re.MULTILINE))
    assert set(ports) <= listed
    assert {"GCS", "raylet", "driver", "learner rank", "rollout actor", "replay buffer"} <= set(ports)


@pytest.fixture
def token(ports: Ports) -> str:
    """Of the run's Ray; only the environment of its processes has it."""
    ours = {port for _, port in ports["GCS"]}
    servers = [one for one in psutil.process_iter() if one.name() == "gcs_server"]
    (gcs,) = [one for one in servers if ours & {other.laddr.port for other in one.net_connections("inet")}]
    return gcs.environ()["RAY_AUTH_TOKEN"]


def test_every_process_answers_the_token_and_refuses_who_has_none_or_another(ports: Ports, token: str) -> None:
    guarded = {kind: {address for address in found if address[1] not in NUMBERS} for kind, found in ports.items()}
    asked = [(kind, address, request) for kind, found in guarded.items() for address in found for request in REQUESTS]
    said = answers(asked, token)
    opened = [one for one, text in zip(asked, said, strict=True) if text in ANSWERS]
    assert {kind for kind, _, _ in opened} == {kind for kind, found in guarded.items() if found}
    assert {address for kind, address, _ in opened if kind == "raylet"} == ports["raylet"]
    for other in ("", "0" * 64):
        assert set(answers(opened, other)) <= REFUSALS


def test_no_key_is_in_the_run_folder_or_on_the_terminal(ports: Ports, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "ports"
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("keys.yaml", "secrets.json")]
    assert {"log", "config.yaml", "environment.json", "metrics.jsonl"} <= {path.name for path in files}
    assert [path for path in files if b"planted-in" in path.read_bytes()] == []
    (kept,) = folder.rglob("secrets.json")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "planted-in-arguments" in kept.read_text()
