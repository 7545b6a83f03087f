"""Runs each tracker on a thread of its own behind a bounded queue, so that none can stop or delay a run.

A tracker that raises is given up, and one that hangs loses what its queue has no room for; either is named in the log once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from corewarding.dataflow.spans import now_s
from corewarding.launch.report.board.tags import tag
from corewarding.launch.report.trackers.tracker import Report, Tracker, flat

ROOM = 200
"""Reports that wait for one tracker; later ones are dropped until there is room again."""
SLOW_S = 30.0
"""Seconds with one report after which a tracker is named as hanging."""
END_S = 20.0
"""Seconds at the end of a run for all trackers to write what waits."""


class TrackerThread:
    """One tracker. No method blocks, apart from `join`."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name = name
        self.lost = 0  # reports that found no room
        self.error: Exception | None = None
        self._tracker = tracker
        self._queue: queue.Queue[Report | Mapping[str, Any]] = queue.Queue(ROOM)
        self._since: float | None = now_s()  # when it began what it does now; None: it waits for work
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def put(self, item: Report | Mapping[str, Any]) -> None:
        """item: a report, or the summary with which the tracker ends."""
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self.lost += 1

    def busy_s(self) -> float:
        """Seconds that it has been at one thing."""
        since = self._since
        return 0.0 if since is None else now_s() - since

    def join(self, timeout_s: float) -> bool:
        """Whether the tracker has ended within that time. One that has not is abandoned."""
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            return True
        self._tracker.abandon()
        return False

    def _work(self) -> None:
        try:
            self._tracker.start()
            while True:
                self._since = None
                item = self._queue.get()
                self._since = now_s()
                if not isinstance(item, Report):
                    self._tracker.finish(flat(item))
                    return
                self._tracker.report(item)
        except Exception as error:  # a client may raise anything; its run goes on
            self.error = error


class Trackers:
    """All trackers of a run. `warn` is called in the thread of the caller."""

    def __init__(
        self,
        trackers: Mapping[str, Tracker],
        warn: Callable[[str], None],
        *,
        every_scalar: bool = False,
        slow_s: float = SLOW_S,
        end_s: float = END_S,
    ) -> None:
        """trackers: by name. every_scalar: not only those that are shown by default."""
        self._warn, self._every_scalar, self._slow_s, self._end_s = warn, every_scalar, slow_s, end_s
        self._threads = [TrackerThread(name, tracker) for name, tracker in trackers.items()]
        self._named: set[str] = set()

    def report(self, report: Report) -> None:
        """Hands a report to every tracker."""
        shown = {name: value for name, value in report.scalars.items() if self._every_scalar or tag(name).default}
        filled = {name: values for name, values in report.histograms.items() if values.size}
        chosen = Report(update=report.update, scalars=shown, histograms=filled, rows=report.rows)
        for thread in self._threads:
            thread.put(chosen)
        self._name_failed()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Ends all trackers. summary: of summary.json; empty if the run did not finish."""
        for thread in self._threads:
            thread.put(summary)
        deadline = now_s() + self._end_s
        for thread in self._threads:
            ended = thread.join(max(0.0, deadline - now_s()))
            if not ended:
                self._name(thread, f"has not ended within {self._end_s:g} s: its last reports are missing")
        self._name_failed()

    def _name_failed(self) -> None:
        for thread in self._threads:
            if thread.error is not None:
                self._name(thread, f"failed ({type(thread.error).__name__}: {thread.error})")
            elif thread.busy_s() > self._slow_s or thread.lost:
                self._name(thread, f"hangs: one report takes {thread.busy_s():.0f} s, {thread.lost} found no room")

    def _name(self, thread: TrackerThread, what: str) -> None:
        if thread.name not in self._named:
            self._named.add(thread.name)
            self._warn(f"tracker {thread.name} {what}; the run goes on, and metrics.jsonl has everything")
