"""The process itself: its cores, and the log that tells why it died. Both in child processes."""

import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from corewarding.dataflow.process import COLLECTS_RARELY, death_of, pin_to_cores


def affinities_after_pinning(core: int) -> set[frozenset[int]]:
    done = threading.Event()
    earlier = threading.Thread(target=done.wait)
    earlier.start()
    pin_to_cores([core], key="engine.cores")
    found = {frozenset(os.sched_getaffinity(int(task.name))) for task in Path("/proc/self/task").iterdir()}
    done.set()
    earlier.join()
    return found


def test_threads_that_ran_before_are_pinned_too() -> None:
    core = max(os.sched_getaffinity(0))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(affinities_after_pinning, core).result() == {frozenset({core})}


def test_a_missing_core_is_refused_and_nothing_changes() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(ValueError, match=r"engine\.cores \[99999\] cannot be used"):
        pin_to_cores([99999], key="engine.cores")
    assert os.sched_getaffinity(0) == before


DIES = """
import faulthandler, os, signal, sys
from pathlib import Path
from corewarding.dataflow.process import keep_log
keep_log(Path(sys.argv[1]))
{}
os.kill(os.getpid(), signal.SIGKILL)
"""
REPORT = (
    "The actor is dead.\nWorker exit detail: Worker unexpectedly exits with a connection error code 2. End of file."
)


@pytest.mark.parametrize(
    ("last", "cause"),
    [
        ("", "its process ended without a word, as after SIGKILL"),
        (
            "print('no space left'); os.system('echo in a child')",
            "its process ended; last words: no space left / in a child",
        ),
        (
            "signal.raise_signal(signal.SIGUSR1)",
            "its process ended without a word, as after SIGKILL",
        ),  # only its stacks
        (
            "signal.raise_signal(signal.SIGSEGV)",
            "it crashed (Fatal Python error: Segmentation fault; the stacks are in",
        ),
    ],
)
def test_the_cause_of_a_death_comes_from_the_log_of_the_process(tmp_path: Path, last: str, cause: str) -> None:
    log = tmp_path / "logs" / "policy-0.log"
    log.parent.mkdir()
    log.write_text("--- process 1\nof an earlier process\n")
    subprocess.run([sys.executable, "-u", "-c", DIES.format(last), str(log)], check=False)
    assert death_of(RuntimeError(REPORT), log).startswith(cause)
    assert "earlier" not in death_of(RuntimeError(REPORT), log)


def test_an_error_that_ray_knows_is_the_cause(tmp_path: Path) -> None:
    assert (
        death_of(RuntimeError("in __init__\nValueError: no such model"), tmp_path / "log")
        == "ValueError: no such model"
    )
    assert death_of(RuntimeError(REPORT), None).startswith("Worker exit detail")


COLLECTIONS = """
import gc, sys
counts = []
gc.callbacks.append(lambda phase, info: counts.append(phase))
import corewarding
rarely = gc.get_threshold()[0]
kept = [[] for _ in range(50_000)]
from corewarding.dataflow.process import settle
settle()
print(rarely, counts.count("start"), gc.get_threshold()[0], gc.get_freeze_count() > 50_000)
"""


@pytest.mark.parametrize(("environment", "rarely"), [({COLLECTS_RARELY: "1"}, True), ({}, False)])
def test_garbage_is_looked_for_rarely_until_a_process_of_a_run_is_up(environment: dict[str, str], rarely: bool) -> None:
    said = subprocess.run(
        [sys.executable, "-c", COLLECTIONS], env=os.environ | environment, capture_output=True, text=True, check=True
    ).stdout.split()
    threshold, collections, after, frozen = said
    assert (int(threshold) == 100_000) == rarely
    assert (int(collections) < 5) == rarely
    assert int(after) == gc.get_threshold()[0]
    assert (frozen == "True") == rarely


def test_a_process_of_a_run_looks_for_no_garbage_when_it_ends() -> None:
    program = (
        "import atexit, gc\nkept = [[] for _ in range(50_000)]\natexit.register(lambda: print(gc.get_freeze_count() > 50_000))\n"
        "from corewarding.dataflow.process import collect_rarely\ncollect_rarely()"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "True\n"
