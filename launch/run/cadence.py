"""What happens every so many updates: evaluations beside the training, and checkpoints between two updates."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from corewarding.dataflow.ids import Version
from corewarding.evals.heldout import EvalResult
from corewarding.launch.report.statistics import Moment
from corewarding.launch.run.feed import QuestionFeed
from corewarding.launch.run.protocols import CheckpointFolders, Learner, Log


class Evaluations:
    """Held-out evaluations of the policy engines. Each is of one version: it is finished before their weights change."""

    def __init__(
        self, evaluate: Callable[[bool], Awaitable[EvalResult | None]], log: Log, *, every: int, total_updates: int
    ) -> None:
        """every: updates between two evaluations during training; 0: none."""
        self._evaluate, self._log = evaluate, log
        self._every, self._total = every, total_updates
        self._running: asyncio.Task[None] | None = None

    def due(self, update: int) -> bool:
        """After the last update a full evaluation follows instead."""
        return self._every > 0 and update % self._every == 0 and update != self._total

    async def full(self, updates: int, moment: Moment) -> EvalResult | None:
        """Evaluates the weights after `updates` updates on all held-out questions; None if there are none."""
        result = await self._evaluate(False)
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
        result = await self._evaluate(True)
        if result is not None:
            self._log.evaluation(updates, result, moment="quick")


class Checkpoints:
    """Saves everything a resumed run needs, at one moment between two updates."""

    def __init__(
        self, folders: CheckpointFolders, learner: Learner, feed: QuestionFeed, *, every: int, total_updates: int
    ) -> None:
        """every: updates between two checkpoints; 0: only after the last update."""
        self._folders, self._learner, self._feed = folders, learner, feed
        self._every, self._total = every, total_updates
        self._saved: int | None = None

    def due(self, update: int) -> bool:
        """The last update always makes a checkpoint."""
        return update == self._total or (self._every > 0 and update % self._every == 0)

    async def save(self, version: Version, *, before: EvalResult | None) -> None:
        """Writes and commits the checkpoint of this version, once. before: the evaluation that a resumed run need not repeat."""
        if self._saved == version.updates:
            return
        state = {
            "incarnation": version.incarnation,
            "updates": version.updates,
            **await self._feed.state(),
            "before": None if before is None else before.as_dict(),
        }
        folder = self._folders.begin(version.updates)
        await self._learner.save(folder / "learner")
        await self._learner.export(folder / "model", "policy")
        self._folders.commit(folder, state)
        self._saved = version.updates
