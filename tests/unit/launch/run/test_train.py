"""A run's coroutine is run to its end, from a script and from a notebook."""

import asyncio
import signal
import threading
import time

import pytest

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
