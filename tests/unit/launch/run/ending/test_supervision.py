"""The supervisor of loops: the first error in time ends everything, as it is."""

import asyncio

import pytest

from corewarding.launch.run.ending.supervision import LoopEndedError, Supervisor


async def forever():
    await asyncio.Event().wait()


async def ends():
    await asyncio.sleep(0)


async def fails_after(seconds, error):
    await asyncio.sleep(seconds)
    raise error


async def test_it_returns_when_the_finite_loop_ends_and_cancels_the_rest():
    supervisor, cancelled = Supervisor(), []

    async def other():
        try:
            await forever()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def finite():
        supervisor.start(other(), "task")
        await asyncio.sleep(0.01)

    await supervisor.run(finite(), a=other())
    assert cancelled == [True, True]


async def test_an_endless_loop_that_ends_is_named():
    with pytest.raises(LoopEndedError, match="loop ask ended"):
        await Supervisor().run(forever(), watchdog=forever(), ask=ends())


async def test_a_cancelled_loop_is_named():
    async def cancels_itself():
        asyncio.current_task().cancel()
        await asyncio.sleep(1)

    with pytest.raises(LoopEndedError, match="ask was cancelled"):
        await Supervisor().run(forever(), ask=cancels_itself())


async def test_the_first_error_in_time_is_raised_as_it_is(caplog):
    first, second = KeyError("first"), ValueError("second")

    async def finite():
        supervisor.start(fails_after(30, second), "late")
        supervisor.start(fails_after(0.01, first), "early")
        await forever()

    supervisor = Supervisor()
    with pytest.raises(KeyError) as raised:
        await supervisor.run(finite(), watchdog=forever())
    assert raised.value is first
    assert caplog.records == []  # the second was cancelled


async def test_a_group_of_errors_is_not_unwrapped():
    group = ExceptionGroup("several", [ValueError("a"), ValueError("b")])
    with pytest.raises(ExceptionGroup) as raised:
        await Supervisor().run(fails_after(0, group), watchdog=forever())
    assert raised.value is group


async def test_a_task_may_end_at_any_time():
    supervisor = Supervisor()

    async def finite():
        await supervisor.start(ends(), "short")
        await asyncio.sleep(0.01)

    await supervisor.run(finite(), watchdog=forever())


async def test_an_error_while_ending_is_logged_once(caplog):
    async def stubborn():
        try:
            await forever()
        except asyncio.CancelledError:
            raise OSError("cannot close") from None

    await Supervisor().run(asyncio.sleep(0.01), a=stubborn(), b=stubborn())
    assert [record.getMessage() for record in caplog.records] in (
        ["a failed after the run had ended: cannot close"],
        ["b failed after the run had ended: cannot close"],
    )
