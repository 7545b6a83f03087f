"""What is seen of the processes of a run from outside: their logs, their stacks, and that they are stopped."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from corewarding.launch.run.ending import evidence
from corewarding.launch.run.ending.supervision import StalledError, refuse_stopped

WAITS = """
import sys, time
from pathlib import Path
from corewarding.dataflow.process import keep_log
keep_log(Path(sys.argv[1]))
def waits_for_a_batch():
    print("ready", flush=True)
    time.sleep(600)
waits_for_a_batch()
"""


@contextmanager
def process(log: Path) -> Iterator[int]:
    """A process with this log, waiting in a function."""
    with subprocess.Popen([sys.executable, "-c", WAITS, str(log)]) as one:
        try:
            while not (log.exists() and "ready" in log.read_text()):
                assert one.poll() is None
            yield one.pid
        finally:
            one.kill()


def test_a_report_names_each_process_where_it_waits_and_that_it_is_stopped(tmp_path: Path) -> None:
    with process(tmp_path / "policy-0.log") as waiting, process(tmp_path / "learner-0.log") as stopped:
        os.kill(stopped, signal.SIGSTOP)
        os.waitid(os.P_PID, stopped, os.WSTOPPED | os.WNOWAIT)
        learner, *threads = evidence.report(tmp_path).splitlines()
    assert learner == f"  learner-0 (process {stopped}) is stopped (SIGSTOP); all stacks: {tmp_path}/learner-0.log"
    assert threads[0] == f"  policy-0 (process {waiting}) runs; all stacks: {tmp_path}/policy-0.log"
    assert threads[1] == "    waits_for_a_batch (<string>:8) < <module> (<string>:9)"
    assert len(threads) == 2


def test_a_process_that_would_die_of_the_signal_is_left_alone(tmp_path: Path) -> None:
    with (
        (tmp_path / "server.log").open("w") as log,
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stderr=log) as child,
    ):
        try:
            assert evidence.report(tmp_path) == ""
            assert child.poll() is None
        finally:
            child.kill()


def test_without_processes_there_is_nothing_to_report(tmp_path: Path) -> None:
    assert evidence.report(tmp_path / "logs") == ""


async def test_a_run_that_starts_refuses_a_stopped_process_and_waits_for_the_others(tmp_path: Path) -> None:
    with process(tmp_path / "learner-1.log") as pid:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(refuse_stopped(tmp_path, for_s=0.1), 1)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(StalledError, match=rf"learner-1 \(process {pid}\) is stopped"):
            await asyncio.wait_for(refuse_stopped(tmp_path, for_s=0.1), 20)
