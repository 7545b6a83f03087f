"""One rollout actor as its group sees it, and the errors of asking it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import ObjectLostError, RayActorError

from corewarding.dataflow.errors import RunError
from corewarding.dataflow.ids import Source
from corewarding.dataflow.process import death_of

State = Literal["starting", "stale", "healthy", "lost"]

DEATH = (RayActorError, ObjectLostError)  # the second: the actor's node was lost with an answer on it


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
    logs: Path | None = None  # folder of the process's log

    @property
    def id(self) -> str:
        return f"{self.source}-{self.index}"

    def cause_of(self, death: BaseException) -> str:
        """Why the process died, with what its log says."""
        return death_of(death, None if self.logs is None else log_of(self.logs, self.source, self.index, self.restart))

    async def call(self, method: str, *args: object, timeout_s: float | None) -> Any:
        """One call; timeout_s None waits without limit. MemberLostError if the actor died or did not answer in time."""
        try:
            return await asyncio.wait_for(answer_of(getattr(self.handle, method).remote(*args)), timeout_s)
        except TimeoutError:
            raise MemberSilentError(f"{self.id} did not answer {method} within {timeout_s:g} s") from None
        except DEATH as error:
            raise MemberLostError(f"{self.id} died in {method}: {self.cause_of(error)}") from error


def log_of(logs: Path, source: Source, index: int, restart: int) -> Path:
    """The log of one process of a group; its stem is the actor's id in samples and traces."""
    return logs / f"{source}-{index}{f'-restart{restart}' if restart else ''}.log"


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
