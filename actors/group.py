"""All rollout actors of one source behind one face: dispatch, death, restart, fencing.

A member is `starting` (its process is not up), `stale` (up, but its weights are not known to be current), `healthy`
(takes tasks) or `lost` (dead or fenced; another takes its place). Invariants: only healthy members get tasks; every
reference Ray gives is awaited; a task handed to run() or sample() ends by its result or by an exception, whatever dies
in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.exceptions import ObjectLostError, RayActorError

from corewarding.dataflow.carriers import Completion, RolloutTask
from corewarding.dataflow.codec import decode, encode
from corewarding.dataflow.errors import RunError
from corewarding.dataflow.ids import Source

log = logging.getLogger(__name__)

State = Literal["starting", "stale", "healthy", "lost"]

_DEATH = (RayActorError, ObjectLostError)  # the second: its node went with an answer on it
_RAISED = re.compile(r"(?:[a-z_]\w*\.)*[A-Z]\w*(?:Error|Exception): ")  # at the left edge, as a traceback ends
_SUMMED = frozenset({"tokens", "tokens_per_s", "prefill_tokens_per_s", "running", "queued", "undelivered", "swaps"})


class RolloutGroupError(RunError):
    """The group cannot go on: actors that do not start, or that die more often than they may."""


class MemberLostError(RunError):
    """An actor died or did not answer in time."""


class MemberSilentError(MemberLostError):
    """It gave no answer in time."""


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """One actor process in one place of the group; its replacement after a death is another member."""

    index: int
    source: Source
    handle: Any
    restart: int = 0  # how many processes this place has had before
    state: State = "starting"
    load: int = 0  # tasks sent and not answered

    @property
    def id(self) -> str:
        return f"{self.source}-{self.index}"


Factory = Callable[[int, int], Any]
"""(index, number of the restart) → handle of a new actor, made with Ray's own max_restarts at 0."""


class RolloutGroup:
    """The controller's view of N rollout actors. Used from one event loop."""

    def __init__(
        self,
        source: Source,
        factory: Factory,
        *,
        num_actors: int,
        max_restarts: int,
        start_timeout_s: float = 60.0,
        on_restart: Callable[[Member], Awaitable[None]] | None = None,
    ) -> None:
        """on_restart: awaited when a restarted actor is up and before it gets tasks; brings its weights up to date."""
        self.source = source
        self.on_restart = on_restart
        self._factory = factory
        self._max_restarts = max_restarts
        self._start_timeout_s = start_timeout_s
        self._num_actors = num_actors
        self._members: list[Member] = []  # by index
        self._changed = asyncio.Event()  # of any member's state; a new one after each change
        self._restarting: dict[int, asyncio.Task[None]] = {}
        self._failure: RolloutGroupError | None = None
        self._num_requeued = 0

    async def start(self) -> None:
        """Makes the actors and returns when all are up and healthy, holding the weights they were made with.

        RolloutGroupError, naming who is missing and what the cluster has left, after start_timeout_s.
        """
        for index in range(self._num_actors):
            self._members.append(Member(index=index, source=self.source, handle=self._factory(index, 0)))
        results = await asyncio.gather(*(self._up(member) for member in self._members), return_exceptions=True)
        missing = [member.id for member, result in zip(self._members, results, strict=True) if result is not None]
        if missing:
            causes = "; ".join(sorted({str(result) for result in results if result is not None}))
            waited = any(isinstance(result, MemberSilentError) for result in results)  # perhaps for room in the cluster
            room = f". Free in the cluster: {_free_resources()}; see rollout.cpus_per_actor, .gpus_per_actor"
            raise RolloutGroupError(
                f"{len(missing)} of {len(self._members)} {self.source} actors did not start: {', '.join(missing)} "
                f"({causes}){room if waited else ''}"
            )
        for member in self._members:
            self._set(member, "healthy")

    async def run(self, task: RolloutTask) -> int:
        """Has the group sampled and delivered to the buffer; its number of tokens.

        A death requeues the task elsewhere with `attempt` + 1. RolloutGroupError when no actor is left to do it; what
        an actor itself raises passes through.
        """
        result = await self._dispatch("run", task)
        return int(result)

    async def sample(self, tasks: Sequence[RolloutTask]) -> list[Completion]:
        """Completions of all tasks, in their order; the buffer sees nothing of them. Errors as run()."""
        messages = await gather_all(*(self._dispatch("sample", task) for task in tasks))
        return [completion for message in messages for completion in decode(message)]

    def healthy(self) -> list[Member]:
        """Who takes tasks."""
        return [member for member in self._members if member.state == "healthy"]

    def receivers(self) -> list[Member]:
        """Who can take weights: everyone whose process is up."""
        return [member for member in self._members if member.state in ("healthy", "stale")]

    async def wait_receivers(self) -> list[Member]:
        """receivers(), waiting for restarts under way where there is none. RolloutGroupError when none will come."""
        while not self.receivers():
            await self._change("take weights")
        return self.receivers()

    def fence(self, member: Member, reason: str) -> None:
        """Takes a member out: its process is ended, its tasks are requeued, and it is restarted.

        For one that died, hangs or refused an update: all that is known of its weights is that they are not current.
        """
        if member.state == "lost":
            return
        log.warning("%s is fenced: %s", member.id, reason)
        self._end(member)
        if (restart := self._restarting.get(member.index)) is not None:
            restart.cancel()  # it was waiting for the weights of the process that is now gone
        self._restarting[member.index] = asyncio.create_task(self._restart(member, reason), name=f"restart {member.id}")

    def readmit(self, member: Member) -> None:
        """Gives tasks again to a member whose weights are current."""
        if member.state == "stale":
            self._set(member, "healthy")

    async def call(self, member: Member, method: str, *args: object, timeout_s: float | None) -> Any:
        """One call of a member. MemberLostError where it died or gave no answer in time; fencing is the caller's.

        timeout_s None: as long as it takes.
        """
        try:
            return await asyncio.wait_for(_answer(getattr(member.handle, method).remote(*args)), timeout_s)
        except TimeoutError:
            raise MemberSilentError(f"{member.id} did not answer {method} within {timeout_s:g} s") from None
        except _DEATH as error:
            raise MemberLostError(f"{member.id} died in {method}: {_reason(error)}") from error

    async def stats(self, *, timeout_s: float = 10.0) -> dict[str, float]:
        """Sums of counts and rates, means of shares, over the members that answer."""
        members = self.healthy()
        answers = await asyncio.gather(
            *(self.call(member, "stats", timeout_s=timeout_s) for member in members), return_exceptions=True
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
                log.warning("no statistics: %s", answer)  # run() meets the same death and deals with it
            elif isinstance(answer, BaseException):
                raise answer
            else:
                reports.append(answer)
        for key in reports[0] if reports else ():
            total = sum(report[key] for report in reports)
            totals[f"{prefix}/{key}"] = total if key in _SUMMED else total / len(reports)
        return totals

    async def close(self) -> None:
        """Ends all actors and restarts. Tasks still waiting end by RolloutGroupError."""
        self._failure = self._failure or RolloutGroupError(f"the {self.source} actors are closed")
        restarts = list(self._restarting.values())
        for restart in restarts:
            restart.cancel()
        await asyncio.gather(*restarts, return_exceptions=True)
        for member in self._members:
            self._end(member)

    async def _dispatch(self, method: str, task: RolloutTask) -> Any:
        while True:
            member = await self._least_loaded()
            member.load += 1
            try:
                return await _answer(getattr(member.handle, method).remote(encode(task)))
            except _DEATH as error:
                self.fence(member, f"it died with task {task.id}: {_reason(error)}")
                task = dataclasses.replace(task, attempt=task.attempt + 1)
                self._num_requeued += 1
            finally:
                member.load -= 1

    async def _least_loaded(self) -> Member:
        while not self.healthy():
            await self._change("take tasks")
        if self._failure is not None:
            raise self._failure
        return min(self.healthy(), key=lambda member: (member.load, member.index))

    async def _change(self, purpose: str) -> None:
        """Waits for any member's change of state; raises where none can come."""
        if self._failure is not None:
            raise self._failure
        if not self._members:
            raise RolloutGroupError(f"no {self.source} actor to {purpose}: the group was not started")
        await self._changed.wait()

    async def _restart(self, member: Member, reason: str) -> None:
        """Puts another in a lost member's place, again and again while that fails and may; then fails the group."""
        try:
            while member.restart < self._max_restarts:
                number = member.restart + 1
                member = Member(
                    index=member.index, source=self.source, handle=self._factory(member.index, number), restart=number
                )
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
            reason = f"it died again after {member.restart} restarts (rollout.max_restarts): {reason}"
            self._fail(RolloutGroupError(f"{member.id} is lost: {reason}"))
        except Exception as error:  # held for whoever waits on the group, since nobody waits on this task
            failure = RolloutGroupError(f"{member.id} cannot be restarted: {type(error).__name__}: {error}")
            failure.__cause__ = error
            self._fail(failure)

    def _fail(self, failure: RolloutGroupError) -> None:
        self._failure = self._failure or failure
        self._changed.set()

    def _end(self, member: Member) -> None:
        self._set(member, "lost")
        with contextlib.suppress(RayActorError):  # dead already
            ray.kill(member.handle, no_restart=True)

    async def _up(self, member: Member) -> None:
        """Waits for the first answer of a new actor; MemberLostError with the cause where none comes."""
        await self.call(member, "version", timeout_s=self._start_timeout_s)

    def _set(self, member: Member, state: State) -> None:
        member.state = state
        self._changed.set()
        self._changed = asyncio.Event()


async def gather_all(*awaitables: Awaitable[Any]) -> list[Any]:
    """Results of all; the first failure in order is raised, but only when every one has ended."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return list(results)


async def _answer(reference: Any) -> Any:
    return await reference


def _free_resources() -> str:
    free = ray.available_resources()
    return ", ".join(f"{name} {free.get(name, 0.0):g}" for name in ("CPU", "GPU"))


def _reason(error: BaseException) -> str:
    """What was raised at the bottom of Ray's report, to its end: an engine's own words may have several lines."""
    lines = [line.rstrip() for line in str(error).splitlines() if line.strip()]
    raised = [number for number, line in enumerate(lines) if _RAISED.match(line)]
    return "\n".join(lines[raised[-1] :] if raised else lines[-1:]) or type(error).__name__
