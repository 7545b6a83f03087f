"""A thread that ends the driver when its event loop is blocked, or when the Ray that it started is gone or stopped.

It waits for nothing that it watches. The watchdog runs in the event loop and names what stalls there.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.run.ending import evidence, local_ray
from corewarding.launch.run.ending.last_words import keep_failure

POLL_S = 0.2
BEAT_S = 1.0
GRACE_S = 10.0
"""How much longer than the watchdog the event loop may be blocked."""


class Guard:
    """`watching` is a context around a run in an event loop."""

    def __init__(self, *, enabled: bool, limit_s: float, logs: Path, remedy: Callable[[], str]) -> None:
        """enabled: this process may be ended; otherwise only what belongs to a lost Ray is ended. limit_s: the
        watchdog's. logs: logs/ of the run directory."""
        self._enabled, self._limit_s, self._logs, self._remedy = enabled, limit_s + GRACE_S, logs, remedy
        self._alive_at = time.monotonic()
        self._ended = threading.Event()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watches the event loop that runs this, until the context is left."""
        self._cpu_clock = time.pthread_getcpuclockid(threading.get_ident())
        beating = asyncio.create_task(self._beat(), name="heartbeat")
        threading.Thread(target=self._watch, name="guard", daemon=True).start()
        try:
            yield
        finally:
            self._ended.set()
            beating.cancel()

    async def _beat(self) -> None:
        while True:
            self._alive_at = time.monotonic()
            await asyncio.sleep(BEAT_S)

    def _watch(self) -> None:
        computed, computed_at, ray = 0.0, time.monotonic(), local_ray.Head()
        while not self._ended.wait(POLL_S):
            if (lost := ray.lost()) is not None:
                self._end(lost)
            now, cpu_s = time.monotonic(), time.clock_gettime(self._cpu_clock)
            if now - computed_at >= BEAT_S:
                if cpu_s - computed > 1e-3 * (now - computed_at):
                    self._alive_at = now  # it computes or writes, such as the hashes of a checkpoint
                computed, computed_at = cpu_s, now
            if self._enabled and now - self._alive_at > self._limit_s:
                blocked = f"the driver's event loop was blocked for {now - self._alive_at:.0f} s"
                self._end(f"{blocked}\n{evidence.report(self._logs)}")

    def _end(self, cause: str) -> None:
        if self._enabled and not self._ended.is_set():
            message = f"{cause}\n{self._remedy()}"
            print(f"corewarding: {message}", file=sys.stderr, flush=True)
            keep_failure(RunDir(self._logs.parent.parent, self._logs.parent.name), message)
            local_ray.end_processes(keep=self._logs)
            os._exit(1)
        local_ray.end_processes(keep=self._logs)
        self._ended.set()
