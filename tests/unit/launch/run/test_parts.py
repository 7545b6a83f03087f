"""The start of all parts: it ends when all have started, or with the first that fails."""

import asyncio
from pathlib import Path

import pytest

from corewarding.dataflow.errors import RunError
from corewarding.launch.run.parts import all_start


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
