"""Ends a run early and in order: Ctrl-C, SIGTERM, and a last resort for an end that takes too long.

The first signal asks the run to finish or give up its update, save a checkpoint and end. A second Ctrl-C ends it at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from corewarding.dataflow.errors import RunError, SignalStop

T = TypeVar("T")

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
SECOND_S = 2.5
"""How long a run may take to end after a second Ctrl-C."""
ENDING_S = 20.0
"""How long the actors and Ray may take to end once the run itself has ended."""


class StoppedError(RunError):
    """A person or a scheduler asked the run to end, and what was under way was given up for it."""


class StopRequest:
    """A request to end a run before its last update. `ask` may be called by a signal handler or another thread."""

    def __init__(self) -> None:
        self.reason: str | None = None
        """`Ctrl-C`, `SIGTERM` or the caller's own words; None while nobody asked."""
        self.told: Callable[[str], None] | None = None
        """Called in the event loop with the reason when the run hears of the request."""
        self._asked = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def ask(self, reason: str) -> None:
        """Asks the run to end. Later requests change nothing."""
        if self.reason is not None:
            return
        self.reason = reason
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._hear)

    def listen(self) -> None:
        """Called in the run's event loop; a request from before is heard now."""
        self._loop = asyncio.get_running_loop()
        if self.reason is not None:
            self._hear()

    async def heard(self) -> None:
        """Returns when somebody has asked."""
        await self._asked.wait()

    async def unless(self, work: Awaitable[T]) -> T:
        """The result of `work`. StoppedError, and the work is cancelled, if the run is asked to end first."""
        working = asyncio.ensure_future(work)
        asked = asyncio.create_task(self._asked.wait())
        try:
            await asyncio.wait({working, asked}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise StoppedError(f"{self.reason} ended what was under way")
        finally:
            asked.cancel()
            if not working.done():
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)

    async def within(self, grace_s: float, work: Awaitable[T]) -> T:
        """The result of `work`. Once the run is asked to end, the work has `grace_s` seconds; then it is cancelled: StoppedError."""
        working = asyncio.ensure_future(work)
        asked = asyncio.create_task(self._asked.wait())
        try:
            await asyncio.wait({working, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                await asyncio.wait({working}, timeout=grace_s)
            if working.done():
                return working.result()
            raise StoppedError(f"{self.reason}; what was under way did not end within run.grace_s = {grace_s:g} s")
        finally:
            asked.cancel()
            if not working.done():
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)

    def _hear(self) -> None:
        if not self._asked.is_set():
            self._asked.set()
            if self.told is not None and self.reason is not None:
                self.told(self.reason)


class Signals:
    """Turns SIGINT and SIGTERM into a StopRequest while the context of `caught` lasts."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop, self._phase = stop, "before"

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handles the signals of this process; does nothing outside of its main thread, where Python has no signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in NAMES}
        self.install()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def install(self) -> None:
        """Takes the signals, again after somebody else (Ray, when it starts) took them."""
        if threading.current_thread() is threading.main_thread():
            for number in NAMES:
                signal.signal(number, self._handle)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps a signal back until the context ends, around what must not be interrupted: Ray's start. Then raises SignalStop."""
        self._phase = "held"
        try:
            yield
        finally:
            self._phase = "before"
            self.install()  # Ray takes SIGTERM for itself
        if self._stop.reason is not None:
            raise self._early()

    @contextmanager
    def running(self) -> Iterator[None]:
        """While the run's event loop hears of requests. Before it a signal raises SignalStop, after it the run is ending anyway."""
        self._phase = "running"
        try:
            yield
        finally:
            self._phase = "after"

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._stop.reason is None:
            self._stop.ask(NAMES[signal.Signals(number)])
            if self._phase == "before":
                raise self._early()
        elif number == signal.SIGINT:  # schedulers repeat SIGTERM, a person who presses Ctrl-C again means it
            leave_after(SECOND_S, 130, lambda: "corewarding: ended at once")
            raise KeyboardInterrupt

    def _early(self) -> SignalStop:
        return SignalStop(
            f"{self._stop.reason} before the first update; nothing was saved, the same command starts again",
            exit_code=0 if self._stop.reason == NAMES[signal.SIGINT] else 128 + signal.SIGTERM,
        )


class LastResort:
    """Ends this process when a run has ended and its end hangs, for example because Ray does not answer any more."""

    def __init__(self, *, enabled: bool) -> None:
        """enabled: whether this process is there for the run alone, as under `corewarding train`."""
        self.enabled = enabled
        self._call_off: Callable[[], None] = lambda: None

    def arm(self, error: BaseException | None) -> None:
        """The run ended, with this error or well; what is left may take ENDING_S seconds."""
        if self.enabled:
            self._call_off()
            why = f"{error}\n" if error is not None else ""
            self._call_off = leave_after(ENDING_S, 0 if error is None else 1, lambda: f"corewarding: {why}{_late()}")

    def disarm(self) -> None:
        self._call_off()


def _late() -> str:
    """Why Ray has not ended, as far as this machine knows."""
    from corewarding.launch.run.ending.local_ray import Head  # imports ray, which this module's other users need not

    if stopped := Head().stopped():
        return f"Ray did not end within {ENDING_S:g} s, because it is stopped (SIGSTOP): {', '.join(stopped)}; it is killed now"
    return f"Ray did not end within {ENDING_S:g} s; `ray stop --force` ends what it left"


def leave_after(seconds: float, code: int, message: Callable[[], str]) -> Callable[[], None]:
    """Ends this process with exit code `code` after so many seconds, whatever its threads wait for. Returns what calls that off."""

    def leave() -> None:
        from corewarding.launch.run.ending.local_ray import (
            end_processes,
        )  # imports ray, which this module's other users need not

        print(message(), file=sys.stderr, flush=True)
        end_processes()
        os._exit(code)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()
    return timer.cancel
