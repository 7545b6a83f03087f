"""What ends a driver that cannot end itself, and the driver's own log. Real processes, without Ray."""

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from corewarding.launch.run.ending import local_ray

BLOCKED = """
import asyncio, sys, time
from pathlib import Path
from corewarding.launch.run.ending.guard import GRACE_S, Guard

def computes():
    until = time.monotonic() + 3
    while time.monotonic() < until:
        sum(range(1000))

async def main():
    guard = Guard(enabled=True, limit_s=1.5 - GRACE_S, logs=Path(sys.argv[1]) / "logs", remedy=lambda: "so it goes on")
    async with guard.watching():
        computes()
        print("computed", flush=True)
        time.sleep(600)

asyncio.run(main())
"""

SPEAKS = """
import logging, os, sys
from pathlib import Path
from corewarding.launch.run.ending.driver_log import driver_log
with driver_log(Path(sys.argv[1]) / "logs" / "driver.log", enabled=True):
    os.write(2, b"[core_worker.cc:1] C++ stack\\n")
    print("a message", file=sys.stderr)
    logging.getLogger("corewarding.actors.group").warning("policy-0 is fenced")
    logging.getLogger("corewarding.launch.report.terminal").info("evaluating")
print("at the end", file=sys.stderr)
os.write(2, b"raw at the end\\n")
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60)


def test_an_event_loop_that_computes_is_left_alone_and_one_that_is_blocked_is_ended(tmp_path: Path) -> None:
    done = run(BLOCKED, tmp_path)
    assert done.stdout == "computed\n"
    assert done.returncode == 1
    assert done.stderr.startswith("corewarding: the driver's event loop was blocked for ")
    assert done.stderr.endswith("so it goes on\n")
    assert f"corewarding: {(tmp_path / 'failure.txt').read_text()}" == done.stderr


def test_the_terminal_gets_messages_and_the_log_everything(tmp_path: Path) -> None:
    done = run(SPEAKS, tmp_path)
    assert done.stderr == "a message\npolicy-0 is fenced\nat the end\nraw at the end\n"
    log = (tmp_path / "logs" / "driver.log").read_text()
    assert log.startswith("--- process ")
    assert "C++ stack\n" in log
    assert "policy-0 is fenced\n" in log
    assert "evaluating\n" in log
    assert "at the end" not in log


@pytest.fixture
def raylet(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like the raylet of a Ray that this process started."""
    pipe = local_ray.mark()
    yield subprocess.Popen([copy_of_sleep(tmp_path), "600"])
    local_ray.end_processes()
    os.close(pipe)


def copy_of_sleep(folder: Path) -> str:
    return shutil.copy(shutil.which("sleep") or "/bin/sleep", folder / "raylet")


def test_a_raylet_that_ends_or_is_stopped_is_lost(
    raylet: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = local_ray.Head()
    assert head.lost() is None
    raylet.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, raylet.pid, os.WSTOPPED | os.WNOWAIT)
    assert head.lost() is None
    assert head.stopped() == [f"the raylet (process {raylet.pid})"]
    monkeypatch.setattr(local_ray, "STOPPED_S", 0.0)
    assert f"the raylet (process {raylet.pid}) is stopped (SIGSTOP)" in (head.lost() or "")
    raylet.kill()
    raylet.wait()
    assert head.lost() == f"the raylet (process {raylet.pid}), which the run had started, ended"


def test_ending_ray_removes_its_folder_and_keeps_its_logs_of_a_failed_run(
    raylet: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    for name, owner in (("session_1", dead.pid), ("session_2", os.getpid()), ("session_3", None)):
        (tmp_path / name / "logs").mkdir(parents=True)
        if owner is not None:
            (tmp_path / name / local_ray.OWNER).write_text(f"{owner} {platform.node()}")
    said_by_raylet = tmp_path / "session_2" / "logs" / "raylet.out"
    said_by_raylet.write_text("no memory")
    (tmp_path / "session_latest").symlink_to(tmp_path / "session_2")
    reading, writing = os.pipe()
    local_ray.own_session(tmp_path / "session_2", writing)
    assert os.read(reading, 1000) == str(tmp_path / "session_2").encode()
    assert sorted(one.name for one in tmp_path.glob("session_*")) == ["session_2", "session_3", "session_latest"]
    with (tmp_path / "session_2" / "agent.out").open("w") as said, said_by_raylet.open() as read:
        agent = subprocess.Popen(["sleep", "600"], env={}, stdout=said)  # a title has overwritten its environment
        reader = subprocess.Popen(["sleep", "600"], env={}, stdin=read)
    local_ray.end_processes(keep=tmp_path / "kept")
    raylet.wait(5)
    agent.wait(5)
    assert reader.poll() is None
    reader.kill()
    assert [one.name for one in tmp_path.glob("session_*")] == ["session_3"]
    assert (tmp_path / "kept" / "ray" / "raylet.out").read_text() == "no memory"


KILLED = """
import os, signal, subprocess, sys
from pathlib import Path
from corewarding.launch.run.ending import local_ray
pipe = local_ray.mark()
child = subprocess.Popen([sys.argv[1] + "/raylet", "600"], start_new_session=True)
(Path(sys.argv[1]) / "session_1").mkdir()
local_ray.own_session(Path(sys.argv[1]) / "session_1", pipe)
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_of_ray_is_left_when_the_driver_is_killed(tmp_path: Path) -> None:
    copy_of_sleep(tmp_path)
    done = run(KILLED, tmp_path)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while psutil.pid_exists(int(done.stdout)) or (tmp_path / "session_1").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
