"""Updates made again from a journal: the same batches, in the same order, by a learner that has the weights of an earlier moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

from corewarding.dataflow.carriers import StepResult, TrainBatch
from corewarding.dataflow.codec import encode
from corewarding.launch.run.protocols import Learner
from corewarding.learner.replay.journal.history import History, PastUpdate


@dataclass(slots=True)
class Comparison:
    """The digests of the weights after each update that was made again, beside those in the journal."""

    num_equal: int = 0
    first_difference: int | None = None  # update

    def add(self, update: int, *, expected: str, found: str) -> None:
        """An update without a digest in the journal is not compared: the run ended before it was made."""
        if expected and expected == found:
            self.num_equal += 1
        elif expected and self.first_difference is None:
            self.first_difference = update


@dataclass(frozen=True, slots=True, kw_only=True)
class Redone:
    """An update that was made again."""

    past: PastUpdate
    batch: TrainBatch  # the same as `past`, or another one made of its completions
    result: StepResult


async def redo(
    learner: Learner,
    history: History,
    *,
    after: int,
    until: int | None,
    comparison: Comparison,
    batch_of: Callable[[PastUpdate], Awaitable[TrainBatch]] | None = None,
) -> AsyncIterator[Redone]:
    """Lets `learner`, whose weights are those after `after` updates, make the next ones up to `until` or the journal's last.

    batch_of: what to train on instead. JournalError if the journal lacks one.
    """
    updates: Iterator[PastUpdate] = history.updates(after, until=until)
    while (past := await asyncio.to_thread(next, updates, None)) is not None:
        batch = past.batch if batch_of is None else await batch_of(past)
        result = await learner.update(encode(batch))
        comparison.add(batch.update, expected=history.made[batch.update].digest, found=result.digest)
        yield Redone(past=past, batch=batch, result=result)
