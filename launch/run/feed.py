"""Questions on their way into the pipeline: the cursor, the buffer's admission, and the rollout tasks of a question.

Invariant: the cursor moves exactly as far as the buffer admits, under one lock, so a checkpoint sees both before or both after.
"""

from __future__ import annotations

import asyncio
from typing import Any

from corewarding.actors.budget import Budget
from corewarding.dataflow.carriers import RolloutTask
from corewarding.dataflow.errors import RunError, TaskFailedError
from corewarding.dataflow.ids import AskedId
from corewarding.launch.run.protocols import Parts


class FailedQuestionsError(RunError):
    """Too many questions have a task that fails wherever it runs."""


class QuestionFeed:
    """Moves questions from the cursor into the buffer's admission."""

    def __init__(self, parts: Parts) -> None:
        self._cursor, self._buffer, self._prepared = parts.cursor, parts.buffer, parts.prepared
        self._config, self._rule, self._incarnation = parts.config, parts.rule, parts.version.incarnation
        self._log, rollout = parts.log, parts.config.rollout
        self._unanswered = tuple(parts.unanswered)
        self._failures = Budget(rollout.max_failed_questions, rollout.failure_window_s)
        self._lock = asyncio.Lock()

    async def next(self) -> list[AskedId]:
        """Waits for room and returns the questions that were admitted, in the cursor's order."""
        room = await self._buffer.room()
        async with self._lock:
            offered = [
                AskedId(question_id=self._prepared.questions[index].id, epoch=epoch)
                for epoch, index in self._cursor.peek(room)
            ]
            num = await self._buffer.admit(offered)
            self._cursor.advance(num)
        return offered[:num]

    def unanswered(self) -> list[RolloutTask]:
        """The tasks of an interrupted run that were not answered."""
        return [
            task
            for asked in dict.fromkeys(group.asked for group in self._unanswered)
            for task in self.tasks(asked)
            if task.id in self._unanswered
        ]

    def tasks(self, asked: AskedId) -> list[RolloutTask]:
        """One task for each group that the reward rule needs of this question."""
        config = self._config
        return [
            RolloutTask(
                id=asked.group(view, source),
                incarnation=self._incarnation,
                attempt=0,
                group_size=config.sampled_size((view, source)),
                prompt_token_ids=self._prepared.prompts[asked.question_id, view],
                temperature=config.rollout.temperature,
                max_new_tokens=config.rollout.max_new_tokens,
                run_seed=config.train.seed,
            )
            for view, source in self._rule.groups
        ]

    async def give_up(self, error: TaskFailedError, asked: AskedId) -> None:
        """Drops a question of which a task fails for good. FailedQuestionsError when these become too many."""
        if not await self._buffer.give_up(asked):
            return  # another task of it failed before
        self._log.warn(f"{asked} is dropped: {error}")
        if self._failures.spend() is None:
            raise FailedQuestionsError(
                f"more than {self._failures.most} questions (rollout.max_failed_questions) failed within "
                f"{self._failures.window_s:g} s (rollout.failure_window_s); the last one: {error}"
            )

    async def state(self) -> dict[str, Any]:
        """The cursor and the buffer at one moment, for a checkpoint."""
        async with self._lock:
            cursor = self._cursor.state()
            return {"cursor": cursor, "buffer": await self._buffer.state(cursor)}
