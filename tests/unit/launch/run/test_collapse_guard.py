"""The collapse guard on a real run directory."""

import asyncio
import io

import pytest
from rich.console import Console

from corewarding.launch.config.load import make_config
from corewarding.launch.report.log import RunLog
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.report.terminal import Terminal
from corewarding.launch.report.trackers.threads import Trackers
from corewarding.launch.run.collapse_guard import CollapseGuard
from corewarding.rewards.settings import CollapseSettings

COLLAPSED = {"vote/no_answer_frac": 0.9}


@pytest.fixture
def guard_of(tmp_path):
    config = make_config({"run": {"name": "r", "root": str(tmp_path)}}, where="test")
    run_dir = RunDir(config.run.root, config.run.name)
    run_dir.open(config)
    out = io.StringIO()
    terminal = Terminal(total_updates=9, console=Console(file=out, width=400))
    log = RunLog(run_dir, terminal, Trackers({}, terminal.warn))

    def make(on_collapse):
        guard = CollapseGuard(CollapseSettings(on_collapse=on_collapse, patience=1), log, questions_per_update=16)
        guard.seen(1, {"vote/no_answer_frac": 0.1})
        guard.seen(2, COLLAPSED)
        return guard, log, out

    yield make
    log.close()


async def test_warn_prints_the_alarm_and_continues(guard_of):
    guard, _, out = guard_of("warn")
    await asyncio.wait_for(guard.pause(2, alive=lambda: None), timeout=1)
    assert guard.stops is None
    assert "most completions hold no answer" in out.getvalue()


async def test_stop_gives_the_reason(guard_of):
    guard, _, _ = guard_of("stop")
    await asyncio.wait_for(guard.pause(2, alive=lambda: None), timeout=1)
    assert "collapse.no_answer_frac" in guard.stops


async def test_pause_waits_for_the_user_and_keeps_the_watchdog_quiet(guard_of):
    guard, log, out = guard_of("pause")
    alive = []
    pausing = asyncio.create_task(guard.pause(2, alive=lambda: alive.append(1)))
    await asyncio.sleep(0.5)
    assert not pausing.done()
    assert alive
    assert f"touch {log.continue_file}" in out.getvalue()
    log.continue_file.touch()
    await asyncio.wait_for(pausing, timeout=5)
    assert not log.continue_file.exists()
    assert guard.stops is None
    guard.seen(3, COLLAPSED)  # the same alarm, already answered
    await asyncio.wait_for(guard.pause(3, alive=lambda: None), timeout=1)
