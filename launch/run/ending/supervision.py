"""What ends a run: the first error of any loop or task, a loop that ends too early, or a run that makes no progress."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from corewarding.dataflow.carriers import BufferProgress
from corewarding.dataflow.errors import RunError
from corewarding.dataflow.ids import Source, Version
from corewarding.launch.run.ending.evidence import processes, report
from corewarding.launch.run.protocols import Buffer, Learner, RolloutWorkers

log = logging.getLogger(__name__)


class LoopEndedError(RunError):
    """A loop that must run as long as the training did end."""


class StalledError(RunError):
    """Nothing moved for `run.watchdog_s` seconds."""


async def refuse_stopped(logs: Path, *, for_s: float = 10.0) -> None:
    """Runs until it is cancelled. StalledError when a process that writes to `logs` is stopped for so long: for a run that starts,
    whose deadlines are long because a model may be large."""
    since: dict[int, float] = {}
    while True:
        stopped = [one for one in await asyncio.to_thread(processes, logs) if one.state == "T"]
        now = time.monotonic()
        since = {one.pid: since.get(one.pid, now) for one in stopped}
        for one in stopped:
            if now - since[one.pid] > for_s:
                raise StalledError(
                    f"{one.name} (process {one.pid}) is stopped (SIGSTOP) for {for_s:g} s, so the run cannot start"
                )
        await asyncio.sleep(for_s / 10)


async def all_start(logs: Path, *starts: Coroutine[Any, Any, object]) -> None:
    """Returns when all have started. The first failure is raised at once, and the other starts are given up."""
    tasks = [asyncio.ensure_future(start) for start in starts]
    started: asyncio.Future[Any] = asyncio.gather(*tasks)
    stopped: asyncio.Future[Any] = asyncio.ensure_future(refuse_stopped(logs))
    try:
        await asyncio.wait({started, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            stopped.result()
        await started
    finally:
        for task in (*tasks, stopped):
            task.cancel()
        await asyncio.gather(*tasks, started, stopped, return_exceptions=True)


class Supervisor:
    """Runs one finite loop beside endless ones and the tasks they start. The first error in time ends all of them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._outcome: asyncio.Future[None] | None = None
        self._told: set[str] = set()  # errors that were raised or logged: a group that fails, fails all its tasks alike

    async def run(self, finite: Coroutine[Any, Any, None], **endless: Coroutine[Any, Any, None]) -> None:
        """Returns when `finite` ends. Raises the first error as it is, and LoopEndedError if one of the endless loops ends."""
        self._outcome = asyncio.get_running_loop().create_future()
        for name, loop in endless.items():
            self._add(loop, name).add_done_callback(self._refuse_end)
        self._add(finite, "finite").add_done_callback(self._accept_end)
        try:
            await self._outcome
        finally:
            remaining = list(self._tasks)
            for task in remaining:
                task.cancel()
            await asyncio.gather(*remaining, return_exceptions=True)

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Starts a task that may end at any time, but not by an error."""
        return self._add(work, name)

    def _add(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            self._fail(LoopEndedError(f"{task.get_name()} was cancelled before the training ended"))
        elif isinstance(error := task.exception(), Exception):
            self._fail(error, name=task.get_name())

    def _fail(self, error: Exception, *, name: str = "") -> None:
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_exception(error)
            self._told.add(repr(error))
        elif name and repr(error) not in self._told:
            self._told.add(repr(error))
            log.warning("%s failed after the run had ended: %s", name, error)

    def _refuse_end(self, task: asyncio.Task[None]) -> None:
        self._fail(LoopEndedError(f"loop {task.get_name()} ended before the training did"))

    def _accept_end(self, _: asyncio.Task[None]) -> None:
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(None)


class Watchdog:
    """Ends the run when nothing moves for `limit_s` seconds: no update, no ready question and no answered task.

    It asks each part with a deadline, so that a part that hangs is named and does not stop the watchdog too.
    """

    def __init__(
        self,
        buffer: Buffer,
        learner: Learner,
        groups: Mapping[Source, RolloutWorkers],
        *,
        limit_s: float,
        version: Callable[[], Version],
        logs: Path,
    ) -> None:
        """logs: of the run's processes."""
        self._buffer, self._learner, self._groups = buffer, learner, groups
        self._limit_s, self._version, self._logs = limit_s, version, logs
        self._progress_at = time.monotonic()

    def alive(self) -> None:
        """The run made progress, or waits for a person."""
        self._progress_at = time.monotonic()

    async def watch(self) -> None:
        """Consumes the buffer's progress; produces nothing; waits for time to pass. Raises StalledError, which names who waits."""
        self.alive()
        seen: tuple[int, ...] = ()
        while True:
            await asyncio.sleep(min(5.0, self._limit_s / 4))
            progress = await self._progress()
            ready = progress.num_ready if progress is not None else (seen or (0,))[0]
            moved = (ready, self._version().updates, *(group.num_answered for group in self._groups.values()))
            if moved != seen or self._learner.starting or any(group.starting for group in self._groups.values()):
                seen = moved
                self.alive()
            stalled = time.monotonic() - self._progress_at
            if stalled > self._limit_s:
                seen_outside = await asyncio.to_thread(report, self._logs)
                raise StalledError("\n".join(filter(None, [self._who_waits(stalled, progress), seen_outside])))

    async def _progress(self) -> BufferProgress | None:
        """The buffer's answer; None if it does not come in time."""
        try:
            return await asyncio.wait_for(self._buffer.progress(), min(10.0, self._limit_s / 2))
        except TimeoutError:
            return None

    def _who_waits(self, stalled: float, progress: BufferProgress | None) -> str:
        buffer = (
            "buffer: does not answer, so everything waits for it; its process is stopped or its machine is out of memory"
            if progress is None
            else f"buffer: {progress.updates_taken} batches taken, room for {progress.room} questions, waits for "
            f"{progress.num_missing} ({', '.join(progress.missing)}), dropped {progress.dropped or 'nothing'}"
        )
        lines = [
            f"nothing moved for {stalled:.0f} s: no update, no ready question, no answered task (run.watchdog_s = {self._limit_s:g})",
            f"  learner: weights {self._version()}, {self._learner.doing or 'waits for a batch'}",
            f"  {buffer}",
        ]
        for source, group in self._groups.items():
            loads = ", ".join(f"{worker.id} has {worker.load} tasks" for worker in group.healthy())
            lines.append(f"  {source} actors: {loads or 'none is healthy'}")
        return "\n".join(lines)
