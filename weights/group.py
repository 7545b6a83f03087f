"""Process groups in which one learner rank sends weights to engines.

Invariant: a weight group is separate from torch.distributed's default group. An engine that dies breaks only its weight group, which
is rebuilt, and never the learner's own collectives. Every wait ends: with completion or, after the rendezvous' timeout_s, with
TransportError.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from corewarding.dataflow.errors import RunError
from corewarding.dataflow.ids import Channel
from corewarding.dataflow.weights import Rendezvous
from corewarding.weights.ipc import IpcGroup
from corewarding.weights.sealed_store import SealedStore, StrangerError, new_key, recognise

LOOPBACK = "127.0.0.1"
_SIOCGIFADDR = 0x8915
# NCCL's own watchdog ends the process on a timeout or a lost peer. Our timeout must come first and end only the group.
_NCCL_ENV = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "0", "TORCH_NCCL_ENABLE_MONITORING": "0"}
_NCCL_WATCHDOG_FACTOR = 10


class TransportError(RunError):
    """A weight transfer failed: a member is missing or lost, or the data differ from the manifest."""


def serve(
    *,
    channel: Channel,
    group_epoch: int,
    world_size: int,
    backend: str,
    timeout_s: float,
    host: str | None = None,
) -> tuple[Rendezvous, dist.Store]:
    """Rank 0: opens a TCPStore on a free port of `host` and returns the address for the other members.

    host: an address of this node that every member reaches; None: loopback, for one node.
    The store must outlive the group: pass it to WeightGroup. TransportError if the port cannot be opened.
    """
    if backend not in ("gloo", "nccl", "ipc"):
        raise TransportError(f"backend must be gloo, nccl or ipc, got {backend!r}")
    if backend == "nccl" and not dist.is_nccl_available():
        raise TransportError("backend nccl: this build of torch has none; publish.backend: gloo works on the CPU")
    address = host or LOOPBACK
    try:
        store = open_store(address, timeout=timedelta(seconds=timeout_s))
    except OSError as error:
        raise TransportError(f"cannot listen on {address} for the {channel} weights: {error}") from error
    rendezvous = Rendezvous(
        channel=channel,
        group_epoch=group_epoch,
        host=address,
        port=store.port,
        world_size=world_size,
        backend=backend,
        timeout_s=timeout_s,
        key=new_key(),
    )
    return rendezvous, store


def open_store(address: str, *, timeout: timedelta) -> dist.TCPStore:
    """A store on a free port of this address only; torch would bind every interface. OSError if the port cannot be opened."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((address, 0))
        listener.listen(128)
        return dist.TCPStore(
            address,
            listener.getsockname()[1],
            is_master=True,
            timeout=timeout,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )


class Work:
    """A running broadcast."""

    def __init__(self, work: dist.Work, *, what: str, timeout_s: float, poll: bool) -> None:
        self._work: dist.Work | None = work
        self._what = what
        self._timeout_s = timeout_s
        self._poll = poll

    def wait(self) -> None:
        """Blocks, without the GIL, until the tensor holds the data. TransportError at timeout or if a member is lost."""
        if self._work is None:
            return
        try:
            if self._poll:
                self._wait_on_device(self._work)
            else:
                self._work.wait()
        except RuntimeError as error:
            raise TransportError(f"{self._what}: {_reason(error)}") from error
        finally:
            self._work = None  # it keeps the group's connections open, and the other members wait for them to close

    def _wait_on_device(self, work: dist.Work) -> None:
        """Polls the completion event, because NCCL's wait() only orders streams and cannot time out."""
        deadline = time.monotonic() + self._timeout_s
        pause = 20e-6
        while not work.is_completed():
            if time.monotonic() > deadline:
                raise TransportError(f"{self._what}: not complete after {self._timeout_s} s")
            time.sleep(pause)
            pause = min(2 * pause, 2e-3)
        work.wait()  # raises the operation's error


class WeightGroup:
    """One membership of one channel: rank 0 sends, ranks 1 and up receive."""

    def __init__(
        self, rendezvous: Rendezvous, *, rank: int, device: torch.device, store: dist.Store | None = None
    ) -> None:
        """Blocks until all members have joined. `store` is serve()'s on rank 0 and None elsewhere.

        TransportError, with the missing ranks, after the rendezvous' timeout_s.
        """
        self.rendezvous = rendezvous
        self.rank = rank
        self.device = device
        self._name = f"{rendezvous.channel} weight group {rendezvous.group_epoch}, rank {rank}"
        timeout = timedelta(seconds=rendezvous.timeout_s)
        self._group: Any = None  # torch's stubs know no collective of a group made directly
        try:
            if store is None:
                store = dist.TCPStore(rendezvous.host, rendezvous.port, timeout=timeout, wait_for_workers=False)
            self._store = SealedStore(store, rendezvous.key)
            self._meet()
            self._group = self._connect(timeout)
            if rendezvous.backend == "gloo":
                recognise(self._group, rendezvous.key, rank=rank, world_size=rendezvous.world_size)
        except TransportError:
            raise
        except StrangerError as error:
            self.close()
            raise TransportError(f"{self._name}: {error}") from error
        except RuntimeError as error:
            raise TransportError(f"{self._name}: cannot join: {_reason(error)}") from error

    def broadcast(self, tensor: Tensor) -> Work:
        """Starts the broadcast of `tensor` (contiguous, same size on every member) from rank 0; call wait() on the result.

        Members must call it in the same order. The tensor must not be used before wait() has returned.
        """
        if self._group is None:
            raise TransportError(f"{self._name} is closed")
        options = dist.BroadcastOptions()
        options.rootRank = 0
        options.rootTensor = 0
        try:
            work = self._group.broadcast([tensor], options)
        except RuntimeError as error:
            raise TransportError(f"{self._name}: {_reason(error)}") from error
        timeout_s = self.rendezvous.timeout_s
        return Work(work, what=self._name, timeout_s=timeout_s, poll=self.rendezvous.backend == "nccl")

    def close(self) -> None:
        """Leaves the group without asking the other members, whose waits end with TransportError. Safe to call twice.

        Must not be called on an event loop: it blocks until another thread's pending operation ends.
        """
        group, self._group = self._group, None
        if group is not None:
            group.abort()

    def _meet(self) -> None:
        """A barrier in the store before the backend's own, because this one can name the missing ranks."""
        self._store.set(f"joined/{self.rank}", "1")
        keys = [f"joined/{rank}" for rank in range(self.rendezvous.world_size)]
        deadline = time.monotonic() + self.rendezvous.timeout_s
        try:
            for key in keys:
                left = max(deadline - time.monotonic(), 1e-3)
                self._store.wait([key], timedelta(seconds=left))
        except RuntimeError as error:
            missing = [rank for rank, key in enumerate(keys) if not self._store.check([key])]
            raise TransportError(
                f"{self._name}: ranks {missing} of {self.rendezvous.world_size} did not join "
                f"{self.rendezvous.host}:{self.rendezvous.port} within {self.rendezvous.timeout_s} s"
            ) from error
        for key in keys:
            self._store.get(key)

    def _connect(self, timeout: timedelta) -> dist.ProcessGroupGloo | dist.ProcessGroupNCCL | IpcGroup:
        world_size = self.rendezvous.world_size
        if self.rendezvous.backend == "ipc":
            return IpcGroup(self._store, self.rank, world_size, device=self.device, timeout=timeout)
        address = local_address(self.rendezvous.host, self.rendezvous.port)
        if self.rendezvous.backend == "gloo":
            gloo = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
            gloo._devices = [dist.ProcessGroupGloo.create_device(hostname=address)]
            gloo._timeout = timeout
            return dist.ProcessGroupGloo(self._store, self.rank, world_size, gloo)
        # else NCCL may pick any interface: one that other nodes cannot reach, or one that strangers reach
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={_interface_of(address)}")
        nccl = dist.ProcessGroupNCCL.Options()
        nccl._timeout = timeout * _NCCL_WATCHDOG_FACTOR
        with torch.cuda.device(self.device), _environment(_NCCL_ENV):
            return dist.ProcessGroupNCCL(self._store, self.rank, world_size, nccl)


def local_address(host: str, port: int) -> str:
    """The address of this node on the route to `host`, at which the other members reach it."""
    if host in (LOOPBACK, "localhost"):
        return LOOPBACK
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # a datagram socket connects without sending
        probe.connect((host, port))
        return str(probe.getsockname()[0])


def interface_towards(host: str, port: int) -> str:
    """Name of this node's network interface on the route to `host`."""
    return _interface_of(local_address(host, port))


def _interface_of(address: str) -> str:
    """Name of the network interface with `address`; TransportError if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an IPv4 address
                request = struct.pack("256s", name.encode()[:15])
                if socket.inet_ntoa(fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)[20:24]) == address:
                    return name
    raise TransportError(f"no network interface of this node has the address {address}")


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Sets environment variables while a constructor reads them."""
    before = {key: os.environ.get(key) for key in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def _reason(error: BaseException) -> str:
    """First sentence of a backend's message, without its source location."""
    line = str(error).strip().split("\n", 1)[0]
    return re.sub(r"^\[[^\]]*:\d+\] ", "", line).split(". This is typically", 1)[0]
