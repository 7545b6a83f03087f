"""Publishes one channel to one rollout group: attempts until every live receiver has acknowledged, or nobody can be blamed.

Invariant: publish() returns only when every live receiver has acknowledged the version. A receiver that did not is fenced and gets no
task until its weights are up to date.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from corewarding.actors.group import Member, RolloutGroup
from corewarding.dataflow.errors import RunError
from corewarding.dataflow.ids import Channel, Version
from corewarding.dataflow.weights import WeightManifest
from corewarding.launch.run.protocols import PublishResult
from corewarding.launch.run.publishing.transfer import ChannelLearner, ChannelTransfer
from corewarding.launch.run.publishing.turns import LearnerTurns
from corewarding.learner.settings import PublishSettings

log = logging.getLogger(__name__)
T = TypeVar("T")

UNEXPLAINED = 2
"""Attempts that may fail without a member to blame before the publisher gives up."""


class PublishError(RunError):
    """A version cannot be published: no receiver is left, or transfers break without a receiver to blame."""


class Publisher:
    """Publishes one channel to one rollout group. Used from the group's event loop."""

    def __init__(
        self,
        channel: Channel,
        learner: ChannelLearner,
        group: RolloutGroup,
        *,
        settings: PublishSettings,
        backend: str = "gloo",
        turns: LearnerTurns | None = None,
    ) -> None:
        """backend: used if settings.backend is `auto`: "gloo", "nccl" or "ipc".

        turns: shared by all that use the learner. A transfer takes part from announce() to the end of send(), while the weights must
        not move; a weight group is built with the learner alone, because its members wait for each other for timeout_s only. So is
        every other call that keeps the learner busy, above all an update.
        """
        self._channel, self._group = channel, group
        self._transfer = ChannelTransfer(
            channel,
            learner,
            group,
            settings=settings,
            backend=backend if settings.backend == "auto" else settings.backend,
            turns=turns or LearnerTurns(),
        )
        self._lock = asyncio.Lock()  # one transfer at a time
        group.on_restart = self.bring_up

    @property
    def weights(self) -> Channel:
        """Whose weights the engines of this channel get."""
        return self._transfer.weights

    def carry(self, weights: Channel) -> None:
        """From the next publication on, the engines get these weights; so do engines that start again."""
        self._transfer.weights = weights

    async def open(self) -> None:
        """Builds the weight group of all live receivers. PublishError if it cannot be built."""
        async with self._lock:
            await self._persist("joining", self._join_all)

    async def publish(self, version: Version, sent: asyncio.Event | None = None) -> PublishResult:
        """Sends the learner's weights, which must be `version`; returns when every live receiver has committed them.

        sent: set when the weights have left the learner, which may then update while the receivers commit. If the transfer must be
        repeated after that, it sends the newer weights instead.
        PublishError if no receiver is left or transfers keep breaking; RolloutGroupError if no restart is left.
        """
        started = time.monotonic()
        left = sent or asyncio.Event()

        async def attempt() -> tuple[WeightManifest, list[Member]] | None:
            members = await self._join_all()
            if members is None:
                return None
            expected = None if left.is_set() else version
            return await self._transfer.run(members, check=self._must_be(expected), sent=left)

        async with self._lock:
            manifest, kept = await self._persist(f"sending version {version}", attempt)
            for member in kept:
                self._group.readmit(member)
        seconds = time.monotonic() - started
        return PublishResult(seconds=seconds, bytes=manifest.total_bytes, num_acknowledged=len(kept))

    async def bring_up(self, member: Member) -> None:
        """Gives a restarted member the learner's present weights, in a weight group of its own.

        MemberLostError if that fails on the member's side, PublishError if it fails elsewhere.
        """

        async def attempt() -> tuple[WeightManifest, list[Member]] | None:
            if not await self._transfer.join([member], fencing=False):
                return None
            return await self._transfer.run([member], fencing=False)

        async with self._lock:
            if member.state == "stale":  # otherwise a publication has already included it
                await self._persist(f"bringing {member.id} up to date", attempt)

    async def close(self) -> None:
        """Leaves the weight group on the learner's side."""
        async with self._lock:
            await self._transfer.close()

    def _must_be(self, expected: Version | None) -> Callable[[Version], None]:
        def check(found: Version) -> None:
            if expected is not None and found != expected:
                raise PublishError(
                    f"channel {self._channel}: asked to publish {expected}, but the learner is at {found}; "
                    "no update may come between an update and its publication"
                )

        return check

    async def _persist(self, what: str, attempt: Callable[[], Awaitable[T | None]]) -> T:
        """Repeats an attempt until it succeeds (is not None). Failures with a member to blame are bounded by its restarts."""
        unexplained = 0
        while (result := await attempt()) is None:
            unexplained += self._transfer.num_fenced == 0
            self._transfer.num_fenced = 0
            if unexplained > UNEXPLAINED:
                raise PublishError(
                    f"channel {self._channel}: {what} failed {unexplained} times, no receiver to blame: {self._transfer.cause}"
                )
        return result

    async def _join_all(self) -> list[Member] | None:
        """All members that can take weights, joined in one group; None if joining failed."""
        if not self._group.receivers():
            log.warning("channel %s: no live receiver, waiting for restarts", self._channel)
        members = await self._group.wait_receivers()
        return members if await self._transfer.join(members) else None
