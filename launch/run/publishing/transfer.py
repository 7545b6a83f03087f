"""One attempt to bring a channel's weights to some members of a rollout group, and the weight group that it needs.

    join → announce → begin on all → send ∥ receive on all → commit on all

Transfers of two channels run beside each other, but for their streams.

A failed attempt leaves the group on both sides; receivers keep their old weights. Weights never pass through the object store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from corewarding.actors.group import Member, MemberLostError, RolloutGroup
from corewarding.dataflow.codec import encode
from corewarding.dataflow.ids import Channel, Version
from corewarding.dataflow.weights import Rendezvous, WeightManifest
from corewarding.launch.run.publishing.turns import LearnerTurns
from corewarding.learner.settings import PublishSettings
from corewarding.weights.group import TransportError

log = logging.getLogger(__name__)

GRACE = 1.5
"""Members time out by themselves after timeout_s; one that has not answered GRACE times as long after is unresponsive."""


class ChannelLearner(Protocol):
    """The part of the learner that a transfer needs. Each call reaches all ranks and raises a rank's error."""

    async def serve_channel(
        self, channel: Channel, group_epoch: int, num_receivers: int, backend: str, timeout_s: float
    ) -> Rendezvous: ...

    async def connect_channel(self, rendezvous: Rendezvous) -> None: ...

    async def announce(
        self, channel: Channel, group_epoch: int, with_checksums: bool, weights: Channel
    ) -> WeightManifest:
        """The manifest of the weights that send() would send now. weights: whose they are."""
        ...

    async def send(self, channel: Channel) -> None:
        """Sends the weights that were announced last on the channel."""
        ...

    async def close_channel(self, channel: Channel) -> None: ...


class ChannelTransfer:
    """The weight group of one channel, rebuilt whenever its members change, and transfers over it. One call at a time."""

    def __init__(
        self,
        channel: Channel,
        learner: ChannelLearner,
        group: RolloutGroup,
        *,
        settings: PublishSettings,
        backend: str,
        turns: LearnerTurns,
    ) -> None:
        self._channel, self._learner, self._group = channel, learner, group
        self.weights: Channel = channel
        """Whose weights are transferred."""
        self._settings, self._backend, self._turns = settings, backend, turns
        self._group_epoch = 0
        self._joined: list[Member] = []  # of the present weight group, by rank
        self._num_transfers = 0
        self.num_fenced = 0  # members fenced since the caller last set it to 0
        self.cause = "the receivers refused it; the log has each cause"  # of the last failure

    async def join(self, members: list[Member], *, fencing: bool = True) -> bool:
        """Makes the weight group exactly `members`; False if that failed.

        fencing: False raises MemberLostError for a member to blame instead of fencing it.
        """
        if self._joined == members:
            return True
        self._joined = []
        self._group_epoch += 1
        timeout_s = self._settings.timeout_s
        async with self._turns.alone():
            rendezvous = await self._learner.serve_channel(
                self._channel, self._group_epoch, len(members), self._backend, timeout_s
            )
            message = encode(rendezvous)
            connected, *joined = await outcomes(
                self._learner.connect_channel(rendezvous),
                *(
                    self._group.call(member, "join", message, rank, timeout_s=GRACE * timeout_s)
                    for rank, member in enumerate(members, start=1)
                ),
            )
        self._blame(members, joined, broken=self._broke(connected), fencing=fencing)
        if connected is None and not any(joined):
            self._joined = members
            return True
        await self._abandon(members, fencing=fencing)
        return False

    async def run(
        self,
        members: list[Member],
        *,
        check: Callable[[Version], None] = lambda _: None,
        sent: asyncio.Event | None = None,
        fencing: bool = True,
    ) -> tuple[WeightManifest, list[Member]] | None:
        """Transfers the learner's weights to the joined members: the manifest and the members that committed it.

        None if the transfer broke and the group must be rebuilt. check: raises if the announced version may not be sent. sent: set
        when the weights have left the learner. fencing: as in join().
        """
        timeout_s = self._settings.timeout_s
        async with self._turns.together():
            try:
                manifest = await self._learner.announce(
                    self._channel, self._group_epoch, self._with_checksums(), self.weights
                )
            except TransportError as error:  # the ranks that had joined are gone
                self._broke(error)
                await self._abandon(members, fencing=fencing)
                return None
            check(manifest.version)
            message = encode(manifest)
            begun = await outcomes(*(self._group.call(m, "begin", message, timeout_s=timeout_s) for m in members))
            self._blame(members, begun, broken=False, fencing=fencing)
            if any(begun):
                await self._abandon(members, fencing=fencing)
                return None
            async with self._turns.stream:
                failed, received = await self._stream(members)
        self._num_transfers += 1
        broke = self._broke(failed)
        self._blame(members, received, broken=broke, fencing=fencing)
        if broke:
            await self._abandon(members, fencing=fencing)
            return None
        if sent is not None:
            sent.set()
        staged = [member for member, error in zip(members, received, strict=True) if error is None]
        message = encode(manifest.version)
        committed = await outcomes(*(self._group.call(m, "commit", message, timeout_s=timeout_s) for m in staged))
        self._blame(staged, committed, broken=False, fencing=fencing)
        kept = [member for member, error in zip(staged, committed, strict=True) if error is None]
        return (manifest, kept) if kept else None

    async def close(self) -> None:
        """Leaves the weight group on the learner's side."""
        self._joined = []
        await self._learner.close_channel(self._channel)

    async def _stream(self, members: Sequence[Member]) -> tuple[Exception | None, list[Exception | None]]:
        """Outcomes of the learner's send and of each receive. After the sender ends, receivers have GRACE * timeout_s left."""
        timeout_s = self._settings.timeout_s
        sending = asyncio.ensure_future(outcomes(self._learner.send(self._channel)))

        async def receive(member: Member) -> None:
            # No limit while the sender is busy: each of its buckets has one.
            receiving = asyncio.ensure_future(self._group.call(member, "receive", timeout_s=None))
            await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                await asyncio.wait({sending})
                await asyncio.wait({receiving}, timeout=GRACE * timeout_s)
            if not receiving.done():
                receiving.cancel()
                raise MemberLostError(f"{member.id} did not end receive within {GRACE * timeout_s:g} s of the sender")
            await receiving

        received = await outcomes(*(receive(member) for member in members))
        (sent,) = await sending
        return sent, received

    def _broke(self, error: Exception | None) -> bool:
        """Whether the transport failed on the learner's side. Any other error of the learner is raised."""
        if error is None:
            return False
        if not isinstance(error, TransportError):
            raise error
        self.cause = str(error)
        log.warning("channel %s, weight group %d broke: %s", self._channel, self._group_epoch, error)
        return True

    def _blame(
        self, members: Sequence[Member], errors: Sequence[Exception | None], *, broken: bool, fencing: bool
    ) -> None:
        """Fences dead or unresponsive members; fences members with errors only if the group did not break, because in a broken group
        every member has an error."""
        for member, error in zip(members, errors, strict=True):
            if error is None:
                continue
            if broken and not isinstance(error, MemberLostError):
                self.cause += f"; {member.id}: {error}"
                continue
            self._joined = []
            if not fencing:
                raise MemberLostError(f"{member.id}: {error}") from error
            self.num_fenced += 1
            self._group.fence(member, str(error))

    async def _abandon(self, members: Sequence[Member], *, fencing: bool) -> None:
        """Leaves a broken group on both sides; the members keep their old weights."""
        await self.close()
        live = [member for member in members if member.state in ("healthy", "stale")]
        timeout_s = GRACE * self._settings.timeout_s
        aborted = await outcomes(*(self._group.call(m, "abort_update", timeout_s=timeout_s) for m in live))
        self._blame(live, aborted, broken=False, fencing=fencing)

    def _with_checksums(self) -> bool:
        every = self._settings.checksum_every
        return every > 0 and self._num_transfers % every == 0


async def outcomes(*awaitables: Awaitable[Any]) -> list[Exception | None]:
    """Runs all to their end; returns None for each that succeeded and the error of each that failed."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, Exception):
            raise result
    return [result if isinstance(result, Exception) else None for result in results]
