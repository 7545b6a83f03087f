"""What happens every so many updates: evaluations beside the training, and checkpoints between two updates."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from corewarding.dataflow.errors import RunError, origin
from corewarding.dataflow.ids import Version
from corewarding.evals.heldout import EvalResult
from corewarding.launch.report.statistics import Moment
from corewarding.launch.run.feed import QuestionFeed
from corewarding.launch.run.protocols import CheckpointFolders, Learner, Log, StagedLostError

log = logging.getLogger(__name__)


class Evaluations:
    """Held-out evaluations of the policy engines. Each is of one version: it is finished before their weights change."""

    def __init__(
        self,
        evaluate: Callable[[Moment], Awaitable[EvalResult | None]],
        log: Log,
        *,
        every: int,
        total_updates: int,
        scored: Callable[[int, float], object],
    ) -> None:
        """every: updates between two evaluations during training; 0: none. scored: told each quick one's score."""
        self._evaluate, self._log, self._scored = evaluate, log, scored
        self._every, self._total = every, total_updates
        self._running: asyncio.Task[None] | None = None

    def due(self, update: int) -> bool:
        """After the last update a full evaluation follows instead."""
        return self._every > 0 and update % self._every == 0 and update != self._total

    async def full(self, updates: int, moment: Moment) -> EvalResult | None:
        """Evaluates the weights after `updates` updates on all held-out questions; None if there are none."""
        result = await self._evaluate(moment)
        if result is not None:
            self._log.evaluation(updates, result, moment=moment)
        return result

    async def begin(self, updates: int) -> None:
        """Starts a quick evaluation of the weights after `updates` updates, which the engines hold now."""
        await self.finish()
        self._running = asyncio.create_task(self._quick(updates), name=f"evaluation after update {updates}")

    async def finish(self) -> None:
        """Returns when the quick evaluation under way, if any, is in the log. Raises its error."""
        if self._running is not None:
            running, self._running = self._running, None
            await running

    def give_up(self) -> None:
        """Ends the quick evaluation under way, if any, without its result."""
        if self._running is not None:
            self._running.cancel()
            self._running = None

    async def _quick(self, updates: int) -> None:
        result = await self._evaluate("quick")
        if result is not None:
            self._log.evaluation(updates, result, moment="quick")
            self._scored(updates, result.score)


class CheckpointWriteError(RunError):
    """A checkpoint could not be written. Those before it stay valid."""


class Checkpoints:
    """Saves everything a resumed run needs, of one moment between two updates.

    The learner waits for a copy in memory only. It is written and committed while updates go on; the next checkpoint waits for it.
    """

    def __init__(
        self,
        folders: CheckpointFolders,
        learner: Learner,
        feed: QuestionFeed,
        start: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        *,
        every: int,
        total_updates: int,
        forget: Callable[[int, int], Awaitable[None]] | None = None,
    ) -> None:
        """every: updates between two checkpoints; 0: only after the last update. start: runs a task whose error ends the run.

        forget: told the segment of the journal from which the oldest checkpoint needs it, and its update; None keeps everything.
        """
        self._forget = forget
        self._folders, self._learner, self._feed, self._start = folders, learner, feed, start
        self._every, self._total = every, total_updates
        self._saved: int | None = None
        self.lost = False
        """Whether the last one was given up, because the ranks that had staged it died."""
        self._writing: asyncio.Task[None] | None = None

    def due(self, update: int) -> bool:
        """The last update always makes a checkpoint."""
        return update == self._total or (self._every > 0 and update % self._every == 0)

    async def save(self, version: Version, *, before: EvalResult | None) -> None:
        """Copies this version, once, and starts to write it. before: the evaluation that a resumed run need not repeat."""
        if self._saved == version.updates:
            return
        await self.written()
        state = {
            "incarnation": version.incarnation,
            "updates": version.updates,
            **await self._feed.state(),
            "before": None if before is None else before.as_dict(),
        }
        await self._learner.stage()
        self.lost = False
        self._saved = version.updates
        self._writing = asyncio.create_task(self._write(state), name=f"checkpoint of update {version.updates}")
        self._start(_end_of(self._writing), self._writing.get_name())

    async def written(self) -> None:
        """Returns when every checkpoint so far is committed. Raises the error that kept one from it."""
        if self._writing is not None:
            await _end_of(self._writing)

    @property
    def under_way(self) -> str | None:
        """The name of the checkpoint that is being written; None if there is none."""
        return None if self._writing is None or self._writing.done() else self._writing.get_name()

    async def finish(self, within_s: float) -> None:
        """For a run that failed: the checkpoint under way gets so many seconds, then it is given up. Its error is only logged."""
        if self._writing is None or self._writing.done():
            return
        try:
            await asyncio.wait({self._writing}, timeout=within_s)
        finally:
            self._writing.cancel()
            (error,) = await asyncio.gather(self._writing, return_exceptions=True)
            if isinstance(error, Exception):
                log.warning("%s", error)

    async def _trim_journal(self) -> None:
        if self._forget is not None:
            oldest = await asyncio.to_thread(self._folders.oldest_state)
            if (segment := oldest.get("buffer", {}).get("segment")) is not None:
                await self._forget(segment, oldest["updates"])

    async def _write(self, state: dict[str, Any]) -> None:
        try:
            folder = await asyncio.to_thread(self._folders.begin, state["updates"])
            try:
                await self._learner.write(folder / "learner")
                await self._learner.export(folder / "learner", folder / "model", "policy")
                await asyncio.to_thread(self._folders.commit, folder, state)
                await self._trim_journal()
            except StagedLostError:
                await asyncio.to_thread(self._folders.give_up, folder)
                self._saved, self.lost = None, True
            except OSError:
                await asyncio.to_thread(self._folders.give_up, folder)
                raise
        except OSError as error:
            cause = origin(error)
            raise CheckpointWriteError(
                f"the checkpoint of update {state['updates']} could not be written: {cause}; make room or mend the disk"
            ) from error


async def _end_of(writing: asyncio.Task[None]) -> None:
    """Returns when the task ends, or raises its error. Cancelling this does not cancel the task."""
    await asyncio.shield(writing)
