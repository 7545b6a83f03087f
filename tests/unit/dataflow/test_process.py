"""Pinning a process moves all its threads. The test does it in a child process."""

import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from corewarding.dataflow.process import pin_to_cores


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
