"""All rollout actors of one source as one group: dispatch, death, restart, fencing.

A member is `starting` (its process is not up), `stale` (up, but its weights may not be current), `healthy` (takes tasks) or `lost`
(dead or fenced; another member takes its place). Invariants: only healthy members get tasks; every reference from Ray is awaited; a
task given to run() or sample() ends with its result or an exception, even if actors die.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from corewarding.actors.budget import Budget, backoff_s
from corewarding.actors.member import DEATH, Member, MemberLostError, State, answer_of, gather_all, not_started
from corewarding.actors.rollout_actor import DeliveryError
from corewarding.actors.stats import combined
from corewarding.dataflow.carriers import Completion, RolloutTask
from corewarding.dataflow.codec import decode, encode
from corewarding.dataflow.errors import RunError, TaskFailedError, UserError, origin, reason_of
from corewarding.dataflow.ids import Source

log = logging.getLogger(__name__)
TOGETHER_S = 0.5  # actors that fail so soon after the first one are named with it


class RolloutGroupError(RunError):
    """The group cannot continue: actors do not start, or die too often."""


Factory = Callable[[int, int], Any]
"""(index, number of the restart) → handle of a new actor, whose own max_restarts in Ray is 0."""


class RolloutGroup:
    """N rollout actors as the controller uses them. Used from one event loop."""

    def __init__(
        self,
        source: Source,
        factory: Factory,
        *,
        num_actors: int,
        max_restarts: int,
        failure_window_s: float = 600.0,
        start_timeout_s: float = 60.0,
        silent_s: float = 30.0,
        logs: Path | None = None,
        on_restart: Callable[[Member], Awaitable[None]] | None = None,
    ) -> None:
        """max_restarts: of one place in the group, within `failure_window_s` seconds. silent_s: seconds without an answer after which
        `watch` fences a member. logs: folder of the processes' logs.

        on_restart: awaited when a restarted actor is up and before it gets tasks; it must give the actor current weights.
        """
        self.source, self.on_restart = source, on_restart
        self._factory, self._num_actors = factory, num_actors
        self._budgets = [Budget(max_restarts, failure_window_s) for _ in range(num_actors)]  # by index
        self._start_timeout_s, self._silent_s, self._logs = start_timeout_s, silent_s, logs
        self._members: list[Member] = []  # by index
        self._changed = asyncio.Event()  # of any member's state; a new one after each change
        self._restarting: dict[int, asyncio.Task[None]] = {}
        self._failure: RolloutGroupError | None = None
        self._num_requeued = self._num_pausing = 0
        self.num_answered = 0
        """Tasks answered since the start."""

    async def start(self) -> None:
        """Makes the actors and returns when all are up. They hold the weights they were made with.

        RolloutGroupError when the first one fails, with its cause, or after start_timeout_s with the cluster's free resources.
        """
        for index in range(self._num_actors):
            self._members.append(self._member(index, 0))
        starts = [asyncio.create_task(self._up(member)) for member in self._members]
        try:
            await asyncio.wait(starts, return_when=asyncio.FIRST_EXCEPTION)
            ended, _ = await asyncio.wait(starts, timeout=TOGETHER_S)
        finally:
            for start in starts:
                start.cancel()  # nobody waits for the others once one has failed
            await asyncio.gather(*starts, return_exceptions=True)
        failures = [start.exception() if start in ended else None for start in starts]
        if any(failures):
            raise RolloutGroupError(not_started(self._members, failures))
        for member in self._members:
            self._set(member, "healthy")

    async def run(self, task: RolloutTask) -> int:
        """Has one task sampled and delivered to the buffer; returns its number of tokens.

        If the actor dies, another gets the task with `attempt` + 1. RolloutGroupError if no actor is left; TaskFailedError if the
        task raises an error on two attempts, on different actors where there are several.
        """
        result = await self._dispatch("run", task)
        return int(result)

    async def sample(self, tasks: Sequence[RolloutTask]) -> list[Completion]:
        """Completions of all tasks, in task order, without the buffer. Errors as in run()."""
        messages = await gather_all(*(self._dispatch("sample", task) for task in tasks))
        return [completion for message in messages for completion in decode(message)]

    def healthy(self) -> list[Member]:
        """Members that take tasks."""
        return [member for member in self._members if member.state == "healthy"]

    @property
    def starting(self) -> bool:
        """Whether a member's process is being started, or will be after a pause; that ends within `start_timeout_s` and the pause."""
        return self._num_pausing > 0 or any(member.state == "starting" for member in self._members)

    def receivers(self) -> list[Member]:
        """Members that can take weights: their process is up."""
        return [member for member in self._members if member.state in ("healthy", "stale")]

    async def wait_receivers(self) -> list[Member]:
        """receivers(), after waiting for restarts if there is none. RolloutGroupError if none will come."""
        while not self.receivers():
            await self._change("take weights")
        return self.receivers()

    def fence(self, member: Member, reason: str) -> None:
        """Ends a member's process, requeues its tasks and starts another in its place.

        For a member that died, hangs or refused an update, so its weights are not current.
        """
        if member.state == "lost":
            return
        log.warning("%s is fenced: %s", member.id, reason)
        self._end(member)
        if (restart := self._restarting.get(member.index)) is not None:
            restart.cancel()  # it waited to give weights to the process that has ended
        restart = asyncio.create_task(self._restart(member, reason), name=f"the restart of {member.id}")
        restart.add_done_callback(self._restarted)
        self._restarting[member.index] = restart

    async def watch(self) -> None:
        """Fences members that do not answer for `silent_s` seconds, such as a stopped process. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(self._silent_s / 6)
            await asyncio.gather(*(self._check(member) for member in self.healthy()))

    async def _check(self, member: Member) -> None:
        try:
            await member.call("version", timeout_s=self._silent_s)
        except MemberLostError as error:
            self.fence(member, str(error))

    def readmit(self, member: Member) -> None:
        """Lets a member whose weights are current take tasks again."""
        if member.state == "stale":
            self._set(member, "healthy")

    async def call(self, member: Member, method: str, *args: object, timeout_s: float | None) -> Any:
        """See Member.call. Does not fence."""
        return await member.call(method, *args, timeout_s=timeout_s)

    async def stats(self, *, timeout_s: float = 10.0) -> dict[str, float]:
        """Statistics of the healthy members that answer, combined, and counts of the group."""
        members = self.healthy()
        answers = await asyncio.gather(
            *(member.call("stats", timeout_s=timeout_s) for member in members), return_exceptions=True
        )
        prefix = f"rollout_{self.source}"
        totals: dict[str, float] = {
            f"{prefix}/num_healthy": float(len(members)),
            f"{prefix}/num_restarts": float(sum(member.restart for member in self._members)),
            f"{prefix}/num_requeued_tasks": float(self._num_requeued),
        }
        reports = []
        for answer in answers:
            if isinstance(answer, MemberLostError):
                log.warning("no statistics: %s", answer)  # run() meets the same death and fences the member
            elif isinstance(answer, BaseException):
                raise answer
            else:
                reports.append(answer)
        return totals | {f"{prefix}/{name}": value for name, value in combined(reports).items()}

    async def close(self) -> None:
        """Ends all actors and restarts. Waiting tasks end with RolloutGroupError."""
        self._failure = self._failure or RolloutGroupError(f"the {self.source} actors are closed")
        restarts = list(self._restarting.values())
        for restart in restarts:
            restart.cancel()
        await asyncio.gather(*restarts, return_exceptions=True)
        for member in self._members:
            self._end(member)

    async def _dispatch(self, method: str, task: RolloutTask) -> Any:
        failed: Member | None = None  # the first attempt's, if that raised an error
        while True:
            member = await self._least_loaded(avoid=failed)
            member.load += 1
            try:
                answer = await answer_of(getattr(member.handle, method).remote(encode(task)))
                self.num_answered += 1
                break
            except DEATH as error:
                self.fence(member, f"it died with task {task.id}: {member.cause_of(error)}")
                task = dataclasses.replace(task, attempt=task.attempt + 1)
                self._num_requeued += 1
            except RayTaskError as error:
                if isinstance(origin(error), DeliveryError | UserError):  # neither the task's nor the actor's fault
                    raise
                if failed is not None:
                    where = " and ".join(dict.fromkeys((failed.id, member.id)))
                    raise TaskFailedError(f"task {task.id} failed twice, on {where}: {reason_of(error)}") from error
                log.warning("task %s failed on %s and runs once more: %s", task.id, member.id, reason_of(error))
                failed, reason = member, reason_of(error)
            finally:
                member.load -= 1
        if failed is not None and failed is not member:  # then it was not the task
            self.fence(failed, f"task {task.id} failed on it and not on {member.id}: {reason}")
        return answer

    async def _least_loaded(self, *, avoid: Member | None = None) -> Member:
        while not self.healthy():
            await self._change("take tasks")
        if self._failure is not None:
            raise self._failure
        return min(self.healthy(), key=lambda member: (member is avoid, member.load, member.index))

    async def _change(self, purpose: str) -> None:
        """Waits until any member's state changes. RolloutGroupError if that cannot happen."""
        if self._failure is not None:
            raise self._failure
        if not self._members:
            raise RolloutGroupError(f"no {self.source} actor to {purpose}: the group was not started")
        await self._changed.wait()

    async def _restart(self, member: Member, reason: str) -> None:
        """Starts another member in a lost one's place, again if that fails. RolloutGroupError when max_restarts are used up."""
        budget = self._budgets[member.index]
        while (spent := budget.spend()) is not None:
            self._num_pausing += 1
            await asyncio.sleep(backoff_s(spent))  # what killed the process may need time to pass
            self._num_pausing -= 1
            number = member.restart + 1
            member = self._member(member.index, number)
            self._members[member.index] = member
            try:
                await self._up(member)
                self._set(member, "stale")
                if self.on_restart is not None:
                    await self.on_restart(member)
                self.readmit(member)
                return
            except MemberLostError as error:
                reason = str(error)
                log.warning("restart %d of %s failed: %s", number, member.id, reason)
                self._end(member)
        window = f"{budget.window_s:g} s (rollout.failure_window_s)"
        reason = f"it died again after {budget.most} restarts (rollout.max_restarts) within {window}: {reason}"
        raise RolloutGroupError(f"{member.id} is lost: {reason}")

    def _restarted(self, restart: asyncio.Task[None]) -> None:
        """Fails the group if a restart failed, since no caller awaits the restart itself."""
        error = None if restart.cancelled() else restart.exception()
        if isinstance(error, RolloutGroupError):
            self._fail(error)
        elif error is not None:
            failure = RolloutGroupError(f"{restart.get_name()} failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            self._fail(failure)

    def _fail(self, failure: RolloutGroupError) -> None:
        self._failure = self._failure or failure
        self._changed.set()

    def _member(self, index: int, restart: int) -> Member:
        handle = self._factory(index, restart)
        return Member(index=index, source=self.source, handle=handle, restart=restart, logs=self._logs)

    def _end(self, member: Member) -> None:
        self._set(member, "lost")
        with contextlib.suppress(RayActorError):  # dead already
            ray.kill(member.handle, no_restart=True)

    async def _up(self, member: Member) -> None:
        """Waits for a new actor's first answer. MemberLostError, with the cause, if none comes."""
        await member.call("version", timeout_s=self._start_timeout_s)

    def _set(self, member: Member, state: State) -> None:
        member.state = state
        self._changed.set()
        self._changed = asyncio.Event()
