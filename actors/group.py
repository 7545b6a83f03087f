"""All rollout actors of one source behind one face: dispatch, death, restart, fencing.

A member is `starting` (its process is not up), `stale` (up, but its weights are not known to be current), `healthy`
(takes tasks) or `lost` (restarts used up). Invariants: only healthy members get tasks; every reference Ray gives is
awaited; a task handed to run() or sample() ends by its result or by an exception, whatever dies in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray.exceptions import RayActorError

from dataflow.codec import decode, encode
from dataflow.types import Completion, RolloutTask, Source

log = logging.getLogger(__name__)

_SUMMED = frozenset({"tokens", "tokens_per_s", "prefill_tokens_per_s", "running", "queued", "undelivered", "swaps"})


class RolloutGroupError(RuntimeError):
    """The group cannot go on: actors that do not start, or that die more often than they may."""


class MemberLostError(RuntimeError):
    """An actor died or did not answer in time."""


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """One place in the group; its handle changes at a restart, its index never."""

    index: int
    source: Source
    handle: Any = None
    state: Literal["starting", "stale", "healthy", "lost"] = "starting"
    restarts: int = 0
    load: int = 0  # tasks sent to the present handle and not answered

    @property
    def id(self) -> str:
        return f"{self.source}-{self.index}"


Factory = Callable[[int, int], Any]
"""(index, number of the restart) → handle of a new actor, made with Ray's own max_restarts at 0."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Changes:
    """Wakes whoever waits for a member to change its state."""

    event: asyncio.Event = field(default_factory=asyncio.Event)

    def announce(self) -> None:
        self.event.set()
        self.event = asyncio.Event()


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
        self._members = [Member(index=index, source=source) for index in range(num_actors)]
        self._changes = _Changes()
        self._restarting: dict[int, asyncio.Task[None]] = {}
        self._failure: RolloutGroupError | None = None
        self._num_requeued = 0

    async def start(self) -> None:
        """Makes the actors and returns when all are up and healthy, holding the weights they were made with.

        RolloutGroupError, naming who is missing and what the cluster has left, after start_timeout_s.
        """
        for member in self._members:
            member.handle = self._factory(member.index, 0)
        results = await asyncio.gather(*(self._up(member) for member in self._members), return_exceptions=True)
        missing = [member.id for member, result in zip(self._members, results, strict=True) if result is not None]
        if missing:
            causes = "; ".join(sorted({str(result) for result in results if result is not None}))
            raise RolloutGroupError(
                f"{len(missing)} of {len(self._members)} {self.source} actors did not start: {', '.join(missing)} "
                f"({causes}). Free in the cluster: {_free_resources()}; see rollout.cpus_per_actor, .gpus_per_actor"
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
        if member.state in ("starting", "lost"):
            return
        log.warning("%s is fenced: %s", member.id, reason)
        self._set(member, "starting")
        with contextlib.suppress(RayActorError):  # dead already
            ray.kill(member.handle, no_restart=True)
        self._restarting[member.index] = asyncio.create_task(self._restart(member, reason), name=f"restart {member.id}")

    def readmit(self, member: Member) -> None:
        """Gives tasks again to a member whose weights are current."""
        if member.state == "stale":
            self._set(member, "healthy")

    async def call(self, member: Member, method: str, *args: object, timeout_s: float) -> Any:
        """One call of a member. MemberLostError where it died or gave no answer in time; fencing is the caller's."""
        try:
            return await asyncio.wait_for(_answer(getattr(member.handle, method).remote(*args)), timeout_s)
        except TimeoutError:
            raise MemberLostError(f"{member.id} did not answer {method} within {timeout_s:g} s") from None
        except RayActorError as error:
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
            f"{prefix}/num_restarts": float(sum(member.restarts for member in self._members)),
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
            if member.handle is not None:
                with contextlib.suppress(RayActorError):
                    ray.kill(member.handle, no_restart=True)
            self._set(member, "lost")

    async def _dispatch(self, method: str, task: RolloutTask) -> Any:
        while True:
            member = await self._least_loaded()
            handle, reference = member.handle, getattr(member.handle, method).remote(encode(task))
            try:
                with self._loading(member):
                    return await _answer(reference)
            except RayActorError as error:
                log.warning("%s died with task %s: %s", member.id, task.group, _reason(error))
                if member.handle is handle:
                    self.fence(member, "its process died")
                task = dataclasses.replace(task, attempt=task.attempt + 1)
                self._num_requeued += 1

    @contextlib.contextmanager
    def _loading(self, member: Member) -> Iterator[None]:
        handle = member.handle
        member.load += 1
        try:
            yield
        finally:
            if member.handle is handle:  # a restart has begun a new count
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
        if not any(member.state in ("starting", "stale") for member in self._members):
            raise RolloutGroupError(f"no {self.source} actor is left to {purpose}")
        await self._changes.event.wait()

    async def _restart(self, member: Member, reason: str) -> None:
        """Brings a member back, again and again while it fails and may; then fails the whole group."""
        while member.restarts < self._max_restarts:
            member.restarts += 1
            member.load = 0
            try:
                member.handle = self._factory(member.index, member.restarts)
                await self._up(member)
                self._set(member, "stale")
                if self.on_restart is not None:
                    await self.on_restart(member)
                self.readmit(member)
                return
            except MemberLostError as error:
                reason = str(error)
                log.warning("restart %d of %s failed: %s", member.restarts, member.id, reason)
                self._set(member, "starting")
                with contextlib.suppress(RayActorError):
                    ray.kill(member.handle, no_restart=True)
            except Exception as error:
                self._fail(member, f"restart {member.restarts} failed: {type(error).__name__}: {error}", error)
                return
        self._fail(member, f"it died again after {member.restarts} restarts (rollout.max_restarts): {reason}", None)

    def _fail(self, member: Member, reason: str, cause: BaseException | None) -> None:
        self._failure = RolloutGroupError(f"{member.id} is lost: {reason}")
        self._failure.__cause__ = cause
        self._set(member, "lost")

    async def _up(self, member: Member) -> None:
        """Waits for the first answer of a new actor; MemberLostError with the cause where none comes."""
        await self.call(member, "version", timeout_s=self._start_timeout_s)

    def _set(self, member: Member, state: Literal["starting", "stale", "healthy", "lost"]) -> None:
        member.state = state
        self._changes.announce()


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
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
