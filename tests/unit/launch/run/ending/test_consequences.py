"""Errors of tasks that nobody awaits, and of threads."""

import asyncio
import gc
import logging
import threading

import pytest

from corewarding.dataflow.errors import RunError
from corewarding.launch.run.ending.consequences import kept_off_the_terminal


async def forgotten(error: Exception) -> None:
    """A task fails and is forgotten."""

    async def fail() -> None:
        raise error

    task = asyncio.create_task(fail())
    await asyncio.wait({task})
    del task
    gc.collect()


@pytest.mark.parametrize(("error", "is_shown"), [(RunError("the buffer died"), False), (KeyError("a defect"), True)])
def test_only_a_defect_is_printed(error: Exception, is_shown: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        with kept_off_the_terminal():
            await forgotten(error)

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert [record.name == "asyncio" for record in caplog.records] == [is_shown]
    assert is_shown or "the buffer died" in caplog.text


@pytest.mark.parametrize(("error", "is_shown"), [(OSError("the disk is full"), False), (KeyError("a defect"), True)])
def test_only_a_threads_defect_is_printed(
    error: Exception, is_shown: bool, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    before = threading.excepthook

    def fail() -> None:
        raise error

    async def run() -> None:
        with kept_off_the_terminal():
            thread = threading.Thread(target=fail)
            thread.start()
            thread.join()

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert threading.excepthook is before, "a notebook's is there again"
    assert ("Traceback" in capsys.readouterr().err) == is_shown
    assert is_shown or "the disk is full" in caplog.text
