"""A run's coroutine is run to its end, from a script and from a notebook; its parts start together or not at all."""

import asyncio
import signal
import threading
import time
from pathlib import Path

import pytest

from corewarding.dataflow.errors import RunError
from corewarding.launch.run.ending.supervision import all_start
from corewarding.launch.run.train import run_to_end


async def work(result):
    await asyncio.sleep(0.001)
    if isinstance(result, Exception):
        raise result
    return result, threading.current_thread() is threading.main_thread()


def test_without_a_running_loop_it_runs_in_this_thread():
    assert run_to_end(work(7)) == (7, True)


async def test_inside_a_running_loop_it_runs_in_a_thread_of_its_own():
    assert run_to_end(work(7)) == (7, False)
    with pytest.raises(ValueError, match="wrong"):
        run_to_end(work(ValueError("wrong")))
    assert asyncio.get_running_loop().is_running()


async def test_an_interrupt_cancels_the_work():
    ended = []

    async def long():
        try:
            await asyncio.sleep(5)
        finally:
            ended.append(time.monotonic())

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a notebook
    try:
        threading.Timer(0.1, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]).start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            run_to_end(long())
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended[0] - began < 3


async def test_all_parts_start(tmp_path: Path) -> None:
    started: list[int] = []

    async def start(number: int) -> None:
        await asyncio.sleep(0.01 * number)
        started.append(number)

    await all_start(tmp_path, start(2), start(1))
    assert started == [1, 2]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_first_failure_is_raised_at_once_and_gives_up_the_others(tmp_path: Path) -> None:
    given_up = asyncio.Event()

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    async def fails() -> None:
        await asyncio.sleep(0.01)
        raise RunError("no such model")

    with pytest.raises(RunError, match="no such model"):
        await asyncio.wait_for(all_start(tmp_path, hangs(), fails()), 5)
    assert given_up.is_set()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_request_to_end_gives_up_the_start(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(all_start(tmp_path, asyncio.sleep(60)), 0.05)
    assert asyncio.all_tasks() == {asyncio.current_task()}
