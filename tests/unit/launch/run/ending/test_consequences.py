"""Errors of tasks that nobody awaits, and of threads."""

import asyncio
import gc
import logging
import threading

import pytest

from corewarding.dataflow.errors import RunError
from corewarding.launch.run.ending.consequences import keep_off_the_terminal


async def forgotten(error: Exception) -> None:
    """A task fails and is forgotten."""

    async def fail() -> None:
        raise error

    task = asyncio.create_task(fail())
    await asyncio.wait({task})
    del task
    gc.collect()


@pytest.fixture(autouse=True)
def hook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # and again after the test


@pytest.mark.parametrize(("error", "is_shown"), [(RunError("the buffer died"), False), (KeyError("a defect"), True)])
def test_only_a_defect_is_printed(error: Exception, is_shown: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        keep_off_the_terminal()
        await forgotten(error)

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert [record.name == "asyncio" for record in caplog.records] == [is_shown]
    assert is_shown or "the buffer died" in caplog.text


@pytest.mark.parametrize(("error", "is_shown"), [(OSError("the disk is full"), False), (KeyError("a defect"), True)])
def test_only_a_threads_defect_is_printed(
    error: Exception, is_shown: bool, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run() -> None:
        keep_off_the_terminal()

    def fail() -> None:
        raise error

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert ("Traceback" in capsys.readouterr().err) == is_shown
    assert is_shown or "the disk is full" in caplog.text
