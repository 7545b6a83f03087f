"""One rollout actor as its group sees it, and the errors of asking it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.exceptions import ObjectLostError, RayActorError

from corewarding.dataflow.errors import RunError
from corewarding.dataflow.ids import Source

State = Literal["starting", "stale", "healthy", "lost"]

DEATH = (RayActorError, ObjectLostError)  # the second: the actor's node was lost with an answer on it
_RAISED = re.compile(r"(?:[a-z_]\w*\.)*[A-Z]\w*(?:Error|Exception): ")  # at the left edge, as a traceback ends


class MemberLostError(RunError):
    """An actor died or did not answer in time."""


class MemberSilentError(MemberLostError):
    """An actor did not answer in time."""


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """One actor process in one place of the group. Its replacement after a death is another member."""

    index: int
    source: Source
    handle: Any
    restart: int = 0  # number of earlier processes in this place
    state: State = "starting"
    load: int = 0  # tasks sent and not answered

    @property
    def id(self) -> str:
        return f"{self.source}-{self.index}"

    async def call(self, method: str, *args: object, timeout_s: float | None) -> Any:
        """One call; timeout_s None waits without limit. MemberLostError if the actor died or did not answer in time."""
        try:
            return await asyncio.wait_for(answer_of(getattr(self.handle, method).remote(*args)), timeout_s)
        except TimeoutError:
            raise MemberSilentError(f"{self.id} did not answer {method} within {timeout_s:g} s") from None
        except DEATH as error:
            raise MemberLostError(f"{self.id} died in {method}: {reason_of(error)}") from error


async def answer_of(reference: Any) -> Any:
    """The value of a Ray reference, which is awaitable but no coroutine."""
    return await reference


async def gather_all(*awaitables: Awaitable[Any]) -> list[Any]:
    """Results of all, in order. Waits until all have ended, then raises the first failure in order."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return list(results)


def not_started(members: Sequence[Member], failures: Sequence[BaseException | None]) -> str:
    """The message for members that did not start. failures: one for each member, or None."""
    missing = [member.id for member, failure in zip(members, failures, strict=True) if failure is not None]
    causes = "; ".join(sorted({str(failure) for failure in failures if failure is not None}))
    room = ""
    if any(isinstance(failure, MemberSilentError) for failure in failures):  # perhaps it waited for room in the cluster
        free = ray.available_resources()
        free_words = ", ".join(f"{name} {free.get(name, 0.0):g}" for name in ("CPU", "GPU"))
        room = f". Free in the cluster: {free_words}; see rollout.cpus_per_actor, .gpus_per_actor"
    return f"{len(missing)} of {len(members)} {members[0].source} actors did not start: {', '.join(missing)} ({causes}){room}"


def reason_of(error: BaseException) -> str:
    """The last exception in Ray's report, with all lines of its message."""
    lines = [line.rstrip() for line in str(error).splitlines() if line.strip()]
    raised = [number for number, line in enumerate(lines) if _RAISED.match(line)]
    return "\n".join(lines[raised[-1] :] if raised else lines[-1:]) or type(error).__name__
