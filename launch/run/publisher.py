"""Weights of one channel on their way from the learner to the engines: who is in the group, what was sent, who has it.

    announce → begin on all → send ∥ receive on all → commit on all → acknowledged

Invariant: publish() returns only when every live receiver has acknowledged the version, and a receiver that did not is
fenced, hence gets no task, until it has been brought up to date. Weights never pass through the object store.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from corewarding.actors.group import Member, MemberLostError, RolloutGroup
from corewarding.dataflow.codec import encode
from corewarding.dataflow.errors import RunError
from corewarding.dataflow.ids import Channel, Version
from corewarding.dataflow.weights import Rendezvous, WeightManifest
from corewarding.learner.settings import PublishSettings
from corewarding.weights.group import TransportError

log = logging.getLogger(__name__)
T = TypeVar("T")

GRACE = 1.5
"""Members time out by themselves after timeout_s; one that has not answered after this much more of it hangs."""
UNEXPLAINED = 2
"""Attempts that may fail without any member to blame before the publisher gives up."""


class PublishError(RunError):
    """A version cannot be published: no receiver is left, or transfers break without a receiver to blame."""


class ChannelLearner(Protocol):
    """What a publisher asks of the learner. Each call reaches all ranks and raises what a rank raised."""

    async def serve_channel(
        self, channel: Channel, group_epoch: int, num_receivers: int, backend: str, timeout_s: float
    ) -> Rendezvous: ...

    async def connect_channel(self, rendezvous: Rendezvous) -> None: ...

    async def announce(self, channel: Channel, group_epoch: int, with_checksums: bool) -> WeightManifest:
        """The manifest of the weights that send() would send now."""
        ...

    async def send(self, channel: Channel) -> None:
        """Sends what was last announced on the channel."""
        ...

    async def close_channel(self, channel: Channel) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishResult:
    """What one publication took."""

    seconds: float
    bytes: int  # of one stream, however many receivers took it
    num_acknowledged: int


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
        learner_lock: asyncio.Lock | None = None,
    ) -> None:
        """backend: what settings.backend `auto` means here, "gloo", "nccl" or "ipc".

        learner_lock: held while a weight group is built, since members wait for each other for timeout_s only, and from
        announce() to the end of send(), while the weights must not move. Whoever else keeps the learner busy, above all
        with an update, holds it meanwhile. Publishers of one learner share it.
        """
        self._channel = channel
        self._learner = learner
        self._group = group
        self._settings = settings
        self._backend = backend if settings.backend == "auto" else settings.backend
        self._learner_lock = learner_lock or asyncio.Lock()
        self._lock = asyncio.Lock()  # one transfer at a time
        self._group_epoch = 0
        self._joined: list[Member] = []  # of the present weight group, by rank
        self._num_fenced = 0  # in the attempt under way
        self._cause = "the receivers refused it; the log has each cause"
        self._num_transfers = 0
        group.on_restart = self.bring_up

    async def open(self) -> None:
        """Builds the weight group of all live receivers. PublishError where it cannot be built."""
        async with self._lock:
            await self._persist("joining", self._join_all)

    async def publish(self, version: Version, sent: asyncio.Event | None = None) -> PublishResult:
        """Sends the learner's weights, which must be `version`, and returns when every live receiver has committed.

        sent: set when the weights have left the learner, which may then update while the receivers commit; should the transfer
        have to be repeated after that, newer weights go in their place.
        PublishError where no receiver is left or transfers keep breaking; RolloutGroupError where restarts ran out.
        """
        started = time.monotonic()
        gone = sent or asyncio.Event()

        async def attempt() -> tuple[WeightManifest, list[Member]] | None:
            members = await self._join_all()
            if members is None:
                return None
            return await self._transfer(members, expected=None if gone.is_set() else version, sent=gone)

        async with self._lock:
            manifest, kept = await self._persist(f"sending version {version}", attempt)
            for member in kept:
                self._group.readmit(member)
        seconds = time.monotonic() - started
        return PublishResult(seconds=seconds, bytes=manifest.total_bytes, num_acknowledged=len(kept))

    async def bring_up(self, member: Member) -> None:
        """Gives a restarted member the learner's present weights, in a weight group of its own.

        MemberLostError where that fails on its side, PublishError where it fails without it.
        """

        async def attempt() -> tuple[WeightManifest, list[Member]] | None:
            if not await self._ensure_joined([member], fencing=False):
                return None
            return await self._transfer([member], expected=None, fencing=False)

        async with self._lock:
            if member.state == "stale":  # else a publication in the meantime took it along
                await self._persist(f"bringing {member.id} up to date", attempt)

    async def close(self) -> None:
        """Leaves the weight group on the learner's side."""
        async with self._lock:
            self._joined = []
            await self._learner.close_channel(self._channel)

    async def _persist(self, what: str, attempt: Callable[[], Awaitable[T | None]]) -> T:
        """Attempts until one succeeds (is not None). Failures with a member to blame are bounded by its restarts."""
        unexplained = 0
        while (result := await attempt()) is None:
            unexplained += self._num_fenced == 0
            self._num_fenced = 0
            if unexplained > UNEXPLAINED:
                raise PublishError(
                    f"channel {self._channel}: {what} failed {unexplained} times, no receiver to blame: {self._cause}"
                )
        return result

    async def _join_all(self) -> list[Member] | None:
        """Everyone who can take weights, joined in one group; None where joining failed."""
        if not self._group.receivers():
            log.warning("channel %s: no live receiver, waiting for restarts", self._channel)
        members = await self._group.wait_receivers()
        return members if await self._ensure_joined(members) else None

    async def _ensure_joined(self, members: list[Member], *, fencing: bool = True) -> bool:
        """Whether the weight group is exactly `members`, after rebuilding it where it was not."""
        if self._joined == members:
            return True
        self._joined = []
        self._group_epoch += 1
        timeout_s = self._settings.timeout_s
        async with self._learner_lock:
            rendezvous = await self._learner.serve_channel(
                self._channel, self._group_epoch, len(members), self._backend, timeout_s
            )
            message = encode(rendezvous)
            connected, *joined = await _outcomes(
                self._learner.connect_channel(rendezvous),
                *(
                    self._group.call(member, "join", message, rank, timeout_s=GRACE * timeout_s)
                    for rank, member in enumerate(members, start=1)
                ),
            )
        self._judge(members, joined, broken=self._broke(connected), fencing=fencing)
        if connected is None and not any(joined):
            self._joined = members
            return True
        await self._abandon(members, fencing=fencing)
        return False

    async def _transfer(
        self,
        members: list[Member],
        *,
        expected: Version | None,
        sent: asyncio.Event | None = None,
        fencing: bool = True,
    ) -> tuple[WeightManifest, list[Member]] | None:
        """The manifest and who has committed it; None where the transfer broke and the group must be rebuilt."""
        timeout_s = self._settings.timeout_s
        async with self._learner_lock:
            manifest = await self._learner.announce(self._channel, self._group_epoch, self._with_checksums())
            if expected is not None and manifest.version != expected:
                raise PublishError(
                    f"channel {self._channel}: asked to publish {expected}, but the learner is at {manifest.version}; "
                    "no update may come between an update and its publication"
                )
            message = encode(manifest)
            begun = await _outcomes(*(self._group.call(m, "begin", message, timeout_s=timeout_s) for m in members))
            self._judge(members, begun, broken=False, fencing=fencing)
            if any(begun):
                await self._abandon(members, fencing=fencing)
                return None
            failed, received = await self._stream(members)
        self._num_transfers += 1
        broke = self._broke(failed)
        self._judge(members, received, broken=broke, fencing=fencing)
        if broke:
            await self._abandon(members, fencing=fencing)
            return None
        if sent is not None:
            sent.set()
        whole = [member for member, error in zip(members, received, strict=True) if error is None]
        message = encode(manifest.version)
        committed = await _outcomes(*(self._group.call(m, "commit", message, timeout_s=timeout_s) for m in whole))
        self._judge(whole, committed, broken=False, fencing=fencing)
        kept = [member for member, error in zip(whole, committed, strict=True) if error is None]
        return (manifest, kept) if kept else None

    async def _stream(self, members: Sequence[Member]) -> tuple[Exception | None, list[Exception | None]]:
        """Outcomes of the learner's send and of each receive; receivers get a while after the sender's end, no more."""
        timeout_s = self._settings.timeout_s
        sending = asyncio.ensure_future(_outcomes(self._learner.send(self._channel)))

        async def receive(member: Member) -> None:
            # Without a limit of its own while the sender is at it: each of its buckets has one.
            receiving = asyncio.ensure_future(self._group.call(member, "receive", timeout_s=None))
            await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                await asyncio.wait({sending})
                await asyncio.wait({receiving}, timeout=GRACE * timeout_s)
            if not receiving.done():
                receiving.cancel()
                raise MemberLostError(f"{member.id} did not end receive within {GRACE * timeout_s:g} s of the sender")
            await receiving

        received = await _outcomes(*(receive(member) for member in members))
        (sent,) = await sending
        return sent, received

    def _broke(self, error: Exception | None) -> bool:
        """Whether the learner's end failed by the transport; any other error of the learner's is raised."""
        if error is None:
            return False
        if not isinstance(error, TransportError):
            raise error
        self._cause = str(error)
        log.warning("channel %s, weight group %d broke: %s", self._channel, self._group_epoch, error)
        return True

    def _judge(
        self, members: Sequence[Member], errors: Sequence[Exception | None], *, broken: bool, fencing: bool
    ) -> None:
        """Fences those to blame: the dead and the hanging always, those with an error only where the group itself held,
        because in a broken group everyone has one."""
        for member, error in zip(members, errors, strict=True):
            if error is None:
                continue
            if broken and not isinstance(error, MemberLostError):
                self._cause += f"; {member.id}: {error}"
                continue
            self._joined = []
            if not fencing:
                raise MemberLostError(f"{member.id}: {error}") from error
            self._num_fenced += 1
            self._group.fence(member, str(error))

    async def _abandon(self, members: Sequence[Member], *, fencing: bool) -> None:
        """Leaves a broken group on both sides; the members keep their old weights."""
        self._joined = []
        await self._learner.close_channel(self._channel)
        live = [member for member in members if member.state in ("healthy", "stale")]
        timeout_s = GRACE * self._settings.timeout_s
        aborted = await _outcomes(*(self._group.call(m, "abort_update", timeout_s=timeout_s) for m in live))
        self._judge(live, aborted, broken=False, fencing=fencing)

    def _with_checksums(self) -> bool:
        every = self._settings.checksum_every
        return every > 0 and self._num_transfers % every == 0


async def _outcomes(*awaitables: Awaitable[Any]) -> list[Exception | None]:
    """Runs all to their end: None for each that succeeded, the error of each that did not."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, Exception):
            raise result
    return [result if isinstance(result, Exception) else None for result in results]
