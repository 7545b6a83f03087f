"""A Ray cluster of two nodes, each in a network namespace of its own: sampling on the one, training on the other."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.more.cluster import ROOT, SMALL, environment, ray_folder, small
from tests.one_plugin import WORDS, check, write_plugin

pytestmark = pytest.mark.timeout(600)
HEAD, OTHER = "10.201.7.1", "10.201.7.2"
RAY = str(Path(sys.executable).with_name("ray"))
DIVIDED = ["--rollout.resources", "sampling", "1", "--learner.resources", "training", "1"]
OURS = ("ray::LearnerActor", "ray::PlacedRolloutActor", "ray::BufferActor", "corewarding.launch.cli train")


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def inside(namespace: str, *words: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, *words]


@pytest.fixture(scope="module")
def namespaces() -> Iterator[list[str]]:
    """Two, joined by one cable."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    names = [f"cor{os.getpid()}a", f"cor{os.getpid()}b"]
    try:
        ip("netns", "add", names[0])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces cannot be made here: {error.stderr}")
    try:
        ip("netns", "add", names[1])
        ip("link", "add", "cora", "netns", names[0], "type", "veth", "peer", "name", "corb", "netns", names[1])
        for name, cable, address in zip(names, ("cora", "corb"), (HEAD, OTHER), strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", cable)
            ip("-n", name, "link", "set", cable, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)


@pytest.fixture(scope="module")
def cluster(namespaces: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The namespace of the head, whose dashboard listens at HEAD:8265."""
    subprocess.run([RAY, "get-auth-token", "--generate"], env=environment(), check=True, capture_output=True)
    folder = tmp_path_factory.mktemp("cluster")
    words = [
        [
            "--head", f"--node-ip-address={HEAD}", "--port=6379", f"--dashboard-host={HEAD}", "--resources", '{"sampling": 2}',
            f"--temp-dir={ray_folder()}",
        ],
        [f"--address={HEAD}:6379", f"--node-ip-address={OTHER}", "--resources", '{"training": 1}'],
    ]  # fmt: skip
    nodes = []
    try:
        for namespace, mine in zip(namespaces, words, strict=True):
            with (folder / namespace).open("w") as log:
                command = inside(namespace, RAY, "start", "--block", "--num-cpus=1", *mine)
                nodes.append(subprocess.Popen(command, env=environment(), stdout=log, stderr=subprocess.STDOUT))
            _wait_for(lambda: "ray stop" in (folder / namespace).read_text(), "ray start", seconds=120)  # noqa: B023
        _wait_for(
            lambda: call(namespaces[0], RAY, "job", "list", *address()).returncode == 0, "the dashboard", seconds=120
        )
        yield namespaces[0]
    finally:
        for node in reversed(nodes):
            node.terminate()
        for node in nodes:
            node.wait(60)


def address() -> tuple[str, str]:
    return "--address", f"http://{HEAD}:8265"


def call(namespace: str, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        inside(namespace, *words), cwd=cwd, env=environment(), capture_output=True, text=True, check=False
    )


def _wait_for(condition: Callable[[], bool], what: str, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about within {seconds} s"
        time.sleep(0.5)


def ours(namespaces: list[str]) -> list[str]:
    """Processes of a run on either node."""
    found = []
    for pid in (pid for name in namespaces for pid in ip("netns", "pids", name).split()):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
            found += [words] if any(name in words for name in OURS) else []
    return found


def test_corewarding_submit_divides_a_run_over_both_nodes(cluster: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "corewarding.launch.cli", "submit", str(ROOT / "configs" / "cpu.yaml"), *address()]
    done = call(cluster, *command, *SMALL, *DIVIDED, "--run.root", "mine", "--run.name", "two", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"learner on {OTHER}; policy on {HEAD}; teacher on {HEAD}" in done.stdout
    assert json.loads((tmp_path / "mine" / "two" / "summary.json").read_text())["updates"] == 2


def test_a_plugin_of_one_file_works_on_both_nodes(cluster: str, tmp_path: Path) -> None:
    write_plugin(tmp_path)
    command = [sys.executable, "-m", "corewarding.launch.cli", "submit", "cpu", *address(), *WORDS, *DIVIDED]
    done = call(cluster, *command, "--run.name", "plugged", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    check(tmp_path / "mine" / "plugged")


def test_ray_job_submit_takes_the_same_configuration(cluster: str, tmp_path: Path) -> None:
    words = [
        "submit",
        "--working-dir",
        str(ROOT / "configs"),
        "--",
        sys.executable,
        "-m",
        "corewarding.launch.cli",
        "train",
        "cpu.yaml",
    ]
    run = ["--run.root", str(tmp_path), "--run.name", "plain"]
    done = call(cluster, RAY, "job", words[0], *address(), *words[1:], *SMALL, *DIVIDED, *run)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert json.loads((tmp_path / "plain" / "summary.json").read_text())["updates"] == 2


def test_ray_job_stop_leaves_no_process_of_ours(cluster: str, namespaces: list[str], tmp_path: Path) -> None:
    words = ["--no-wait", "--submission-id", "stopped", "--working-dir", str(ROOT / "configs"), "--"]
    train = [sys.executable, "-m", "corewarding.launch.cli", "train", "cpu.yaml", *small(train__updates=400), *DIVIDED]
    run = ["--run.root", str(tmp_path), "--run.name", "long"]
    assert call(cluster, RAY, "job", "submit", *address(), *words, *train, *run).returncode == 0
    log = tmp_path / "long" / "metrics.jsonl"
    _wait_for(lambda: log.exists() and '"kind": "update"' in log.read_text(), "an update", seconds=180)
    assert len(ours(namespaces)) >= 4
    assert call(cluster, RAY, "job", "stop", *address(), "stopped").returncode == 0
    _wait_for(lambda: not ours(namespaces), "the end of all processes of the run", seconds=60)


def test_room_that_no_node_has_is_named(cluster: str, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "corewarding.launch.cli",
        "submit",
        str(ROOT / "configs" / "cpu.yaml"),
        *address(),
        "--dry-run",
    ]
    began = time.monotonic()
    done = call(cluster, *command, "--rollout.cpus-per-actor", "0.25", "--learner.cpus-per-rank", "1.25", cwd=tmp_path)
    assert done.returncode == 2
    assert time.monotonic() - began < 90  # of which the search for room took less than 60
    assert "its nodes have no room for all of it" in done.stdout
    assert f"{HEAD} has 1 CPU, 2 sampling" in done.stdout
