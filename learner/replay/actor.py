"""The replay buffer as a Ray actor: decodes what comes, encodes what goes, and leaves everything else to ReplayBuffer.

Bytes are messages of dataflow.codec. Use it through BufferClient; only rollout actors call `accept` themselves.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from corewarding.dataflow.carriers import Completion, TokenStatistics, TrainBatch
from corewarding.dataflow.codec import decode_list, encode
from corewarding.dataflow.ids import AskedId, Channel
from corewarding.dataflow.process import keep_log, settle
from corewarding.dataflow.votes import InitialAnswers
from corewarding.learner.replay.buffer import ReplayBuffer
from corewarding.learner.replay.events import Event
from corewarding.learner.replay.journal.decisions import decision
from corewarding.learner.replay.journal.journal import Journal, JournalPlan
from corewarding.learner.replay.journal.records import (
    Acknowledged,
    Admitted,
    Arrived,
    GivenUp,
    Initial,
    Record,
    Reported,
    Statistics,
    Taken,
    Updated,
)
from corewarding.learner.replay.journal.recovery import newest_start, recover
from corewarding.learner.replay.scoring import BufferPlan
from corewarding.questions.gold import GoldAnswers

SNAPSHOT_UPDATES = 20
"""A snapshot is written at each checkpoint, and otherwise after so many updates."""


class BufferActor:
    """The methods of ReplayBuffer, spoken in bytes. With a journal, each change is in it before the call returns, and a process that
    comes back in this one's place goes on from it; calls that the death interrupted are made again by Ray and change nothing twice."""

    def __init__(
        self,
        plan: BufferPlan,
        gold: GoldAnswers,
        state: dict[str, Any] | None = None,
        log: Path | None = None,
        journal: JournalPlan | None = None,
    ) -> None:
        """state: of a checkpoint; without a meaning where the buffer goes on from its journal."""
        keep_log(log)
        settle()
        self._decided: list[Record] = []
        self._last_call: tuple[int, int] | None = None  # number of the newest `admit`, and its answer
        self._came_back = ""
        self._encoded: tuple[TrainBatch, bytes] | None = None  # the newest batch
        self._snapshot_at = 0 if state is None else int(state["updates_done"])
        self._journal: Journal | None = None
        self._cursor, self._admitted = (
            {} if journal is None else journal.cursor,
            list[AskedId](),
        )  # asked since the cursor
        if journal is None:
            self.buffer = ReplayBuffer(plan, gold, state)
            return
        last = newest_start(journal.folder)
        is_back = last is not None and last.start == journal.start.start
        if is_back or journal.start.goes_on:
            found = recover(journal.folder, plan, gold)
            self.buffer = found.buffer
            if is_back:
                self._cursor, self._admitted, self._last_call = found.cursor, found.admitted, found.last_call
                self._came_back = f"process {os.getpid()} goes on from the journal ({found.words()})"
                print(self._came_back, file=sys.stderr, flush=True)
            else:
                self.buffer.forget_reports()  # the driver has read them from the journal
        else:
            self.buffer = ReplayBuffer(plan, gold, state)
        self._journal = Journal(journal)
        self.buffer.on_event = self._hear
        if not is_back and self._snapshot() is None:
            self._journal.append(journal.start)

    async def know_initial(self, answers: bytes) -> None:
        """answers: a list of InitialAnswers."""
        self.buffer.know_initial(decode_list(answers, InitialAnswers))
        self._note(Initial(answers=answers))

    async def room(self) -> int:
        return await self.buffer.room()

    async def admit(self, call: int, offered: bytes) -> int:
        """offered: a list of AskedId. call: its number; the newest may be repeated."""
        if self._last_call is not None and self._last_call[0] == call:
            return self._last_call[1]
        asked = decode_list(offered, AskedId)
        num = await self.buffer.admit(asked)
        self._last_call = call, num
        if num:
            self._admitted += asked[:num]
            self._note(Admitted(call=call, asked=tuple(asked[:num])))
        return num

    async def acknowledged(self, channel: Channel, updates: int) -> None:
        await self.buffer.acknowledged(channel, updates)
        self._note(Acknowledged(channel=channel, updates=updates))

    async def accept(self, payload: bytes) -> None:
        """payload: a list of Completion, one group. Returning is the acknowledgement."""
        await self.buffer.accept(decode_list(payload, Completion))
        self._note(Arrived(completions=payload))

    async def give_up(self, asked: bytes) -> bool:
        """asked: a list of one AskedId."""
        (one,) = decode_list(asked, AskedId)
        given_up = await self.buffer.give_up(one)
        if given_up:
            self._note(GivenUp(asked=one))
        return given_up

    async def take(self, update: int) -> tuple[int, bool, bytes]:
        """(number of samples, True, TrainBatch), or (number of samples, False, list of unscored TrainingSample) if the rule needs
        token statistics; then `score` follows."""
        if update > self._snapshot_at + SNAPSHOT_UPDATES:
            self._snapshot()
        await self.buffer.take(update)
        taken = self.buffer.taken(update)
        if self.buffer.needs_statistics and taken:
            self._note(Taken(update=update, asked=taken))
            unscored = self.buffer.unscored(update)
            return len(unscored), False, encode(unscored)
        batch = self.buffer.batch(update)
        if taken:
            self._note(Taken(update=update, asked=taken))
        return len(batch.samples), True, self._bytes_of(batch)

    async def halt(self) -> int:
        return self.buffer.halt()

    async def score(self, update: int, statistics: bytes) -> tuple[int, bytes]:
        """(number of samples, TrainBatch). statistics: the list of TokenStatistics of what `take` returned."""
        is_new = bool(self.buffer.taken(update))
        batch = self.buffer.batch(update, decode_list(statistics, TokenStatistics))
        if is_new:
            self._note(Statistics(update=update, statistics=statistics))
        return len(batch.samples), self._bytes_of(batch)

    async def updated(self, update: int, digest: str) -> None:
        """The learner made `update`; digest: of its weights after it."""
        self._note(Updated(update=update, digest=digest))

    async def report(self, update: int) -> bytes:
        """The UpdateReport of an update's batch; once per update, and of the newest one again."""
        report = self.buffer.report(update)
        self._note(Reported(update=update))
        return encode(report)

    async def progress(self) -> bytes:
        """A BufferProgress."""
        return encode(dataclasses.replace(self.buffer.progress(), came_back=self._came_back))

    async def answers_read(self) -> dict[str, int]:
        return self.buffer.answers_read()

    async def state(self, cursor: dict[str, Any]) -> dict[str, Any]:
        """As ReplayBuffer.state; with a journal, which is on the disk then, also the segment from which the buffer can be rebuilt.

        cursor: of the questions, at this moment.
        """
        state = self.buffer.state()
        if self._journal is None:
            return state
        self._cursor, self._admitted = cursor, []
        segment = self._snapshot()
        await self._journal.sync()
        return state if segment is None else state | {"segment": segment}

    async def keep_from(self, segment: int) -> None:
        """Removes the journal's older segments."""
        if self._journal is not None:
            self._journal.keep_from(segment)

    def _hear(self, event: Event) -> None:
        if (record := decision(event, self._bytes_of)) is not None:
            self._decided.append(record)

    def _bytes_of(self, batch: TrainBatch) -> bytes:
        """The newest batch, encoded; kept, because the journal and the learner want it."""
        if self._encoded is None or self._encoded[0] is not batch:
            self._encoded = batch, encode(batch)
        return self._encoded[1]

    def _note(self, change: Record) -> None:
        """Writes a change with what was decided upon it."""
        if self._journal is not None:
            self._journal.append(change, *self._decided)
        self._decided.clear()

    def _snapshot(self) -> int | None:
        """Writes everything that the buffer needs to come back; returns its segment. None where an update is under way."""
        if self._journal is None or (found := self.buffer.snapshot()) is None:
            return None
        state, groups = found
        self._snapshot_at = state["admission"]["updates_done"]
        own = {"last_call": self._last_call, "cursor": self._cursor, "admitted": self._admitted}
        return self._journal.snapshot(state | own, groups)


def start_buffer(
    plan: BufferPlan,
    gold: GoldAnswers,
    state: dict[str, Any] | None,
    *,
    runtime_env: dict[str, Any],
    log: Path | None = None,
    journal: JournalPlan | None = None,
    max_restarts: int = 0,
) -> ActorHandle[BufferActor]:
    """Starts the buffer's process. state: of a checkpoint, or None. runtime_env: Ray's, of the process. log: its file.

    max_restarts: so many deaths are mended from the journal; calls that a death interrupts are then made again.
    """
    remote: Any = ray.remote(BufferActor)  # Ray's annotations lack max_concurrency
    options = remote.options(
        num_cpus=0,
        max_concurrency=1000,
        runtime_env=runtime_env,
        max_restarts=max_restarts,
        max_task_retries=-1 if max_restarts else 0,
    )
    actor: ActorHandle[BufferActor] = options.remote(plan, gold, state, log, journal)
    return actor
