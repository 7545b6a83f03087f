"""Broadcasts between processes of one node through memory that all of them map: shared memory on the CPU, CUDA IPC on a GPU.

For engine and learner on one GPU, where NCCL refuses. Rank 0 owns a ring of chunks; a Unix socket to each other member tells which
chunks are full and which are taken. A process that ends or leaves closes its socket, so the others notice at once. The memory is freed
with the last process that maps it.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import secrets
import socket
import struct
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

CHUNK_BYTES = 1 << 22
NUM_CHUNKS = 4
_RANK = struct.Struct("<I")
_UCRED = struct.Struct("3i")  # pid, uid, gid


class IpcWork:
    """A running broadcast, with the interface of torch.distributed.Work."""

    def __init__(self, future: Future[None]) -> None:
        self._future = future

    def wait(self) -> None:
        """Blocks until it is complete. RuntimeError if a member left or made no progress for the group's timeout."""
        self._future.result()


class IpcGroup:
    """One membership. Replaces a torch process group, but only broadcasts from rank 0 and aborts."""

    def __init__(
        self, store: dist.Store, rank: int, world_size: int, *, device: torch.device, timeout: timedelta
    ) -> None:
        """Blocks until all members are connected. RuntimeError if one is on another node or cannot map the memory."""
        self._rank, self._device = rank, device
        self._timeout_s = timeout.total_seconds()
        self._peers: dict[int, socket.socket] = {}  # on rank 0: by rank; on other ranks: rank 0 only
        self._num_chunks = 0  # written or read so far
        try:
            self._ring = self._serve(store, world_size) if rank == 0 else self._connect(store)
        except OSError as error:
            self._hang_up()
            raise RuntimeError(f"backend ipc: {error}") from error
        except RuntimeError:
            self._hang_up()
            raise
        self._pump = ThreadPoolExecutor(1, thread_name_prefix="weights-ipc")

    def broadcast(self, tensors: list[Tensor], options: object = None) -> IpcWork:
        """Starts the broadcast of one tensor, after those started earlier."""
        (tensor,) = tensors
        data = tensor.view(-1).view(torch.uint8)
        ready = torch.cuda.current_stream(data.device).record_event() if data.is_cuda else None
        move = self._send if self._rank == 0 else self._receive

        def run() -> None:
            if ready is not None:
                ready.synchronize()
            for start in range(0, data.numel(), CHUNK_BYTES):
                move(data[start : start + CHUNK_BYTES])
            if self._rank == 0:
                self._await_taken(0)

        return IpcWork(self._pump.submit(run))

    def abort(self) -> None:
        """Leaves the group; the other members' broadcasts fail."""
        self._hang_up()  # ends queued broadcasts too
        self._pump.shutdown(wait=True)
        del self._ring

    def _send(self, data: Tensor) -> None:
        self._await_taken(NUM_CHUNKS - 1)
        self._slot(data).copy_(data)
        self._synchronize()
        self._num_chunks += 1
        for rank in self._peers:
            self._tell(rank)

    def _receive(self, data: Tensor) -> None:
        self._hear(0, 1)
        data.copy_(self._slot(data))
        self._synchronize()
        self._num_chunks += 1
        self._tell(0)

    def _slot(self, data: Tensor) -> Tensor:
        return self._ring[self._num_chunks % NUM_CHUNKS][: data.numel()]

    def _await_taken(self, outstanding: int) -> None:
        """Waits until no receiver has more than `outstanding` chunks to take."""
        for rank in self._peers:
            while self._num_chunks - self._taken[rank] > outstanding:
                self._taken[rank] += self._hear(rank, NUM_CHUNKS)

    def _synchronize(self) -> None:
        for device in {self._ring.device, self._device}:
            if device.type == "cuda":
                torch.cuda.current_stream(device).synchronize()

    def _tell(self, rank: int) -> None:
        try:
            self._peers[rank].sendall(b"+")
        except OSError as error:
            raise RuntimeError(f"rank {rank} has left: {error}") from error

    def _hear(self, rank: int, at_most: int) -> int:
        """Waits for `rank` and returns how many chunks it reports, at least one."""
        try:
            heard = self._peers[rank].recv(at_most)
        except TimeoutError:
            raise RuntimeError(f"rank {rank} did nothing for {self._timeout_s:g} s") from None
        except OSError as error:
            raise RuntimeError(f"rank {rank} has left: {error}") from error
        if not heard:
            raise RuntimeError(f"rank {rank} has left")
        return len(heard)

    def _serve(self, store: dist.Store, world_size: int) -> Tensor:
        ring, handle, descriptors = _share(self._device)
        try:
            name = f"corewarding-{secrets.token_hex(16)}"
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                listener.bind(f"\0{name}")
                listener.listen(world_size)
                store.set("ipc", name)
                deadline = time.monotonic() + self._timeout_s
                while len(self._peers) < world_size - 1:
                    listener.settimeout(max(deadline - time.monotonic(), 1e-3))
                    try:
                        peer, _ = listener.accept()
                    except TimeoutError:
                        raise RuntimeError(
                            f"backend ipc: {world_size - 1 - len(self._peers)} of {world_size - 1} engines did not connect "
                            f"within {self._timeout_s:g} s"
                        ) from None
                    self._admit(peer, handle, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._taken = dict.fromkeys(self._peers, 0)
        return ring

    def _admit(self, peer: socket.socket, handle: dict[str, Any], descriptors: list[int]) -> None:
        peer.settimeout(self._timeout_s)
        _, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        rank = peer.recv(_RANK.size, socket.MSG_WAITALL)
        if uid != os.getuid() or len(rank) < _RANK.size:  # reject other users
            peer.close()
            return
        self._peers[_RANK.unpack(rank)[0]] = peer
        socket.send_fds(peer, [json.dumps(handle).encode()], descriptors)
        if peer.recv(1) != b"+":
            raise RuntimeError(f"backend ipc: rank {_RANK.unpack(rank)[0]} cannot map the learner's memory")

    def _connect(self, store: dist.Store) -> Tensor:
        peer = self._peers[0] = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peer.settimeout(self._timeout_s)
        try:
            peer.connect(f"\0{store.get('ipc').decode()}")
        except OSError as error:
            raise RuntimeError(
                f"backend ipc: the learner's rank 0 is not on this node ({error}); set publish.backend: gloo"
            ) from error
        peer.sendall(_RANK.pack(self._rank))
        handle, descriptors, _, _ = socket.recv_fds(peer, 1 << 16, 1)
        try:
            if not handle:
                raise RuntimeError("backend ipc: rank 0 has left")
            ring = _open(json.loads(handle), descriptors, self._device)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._tell(0)
        return ring

    def _hang_up(self) -> None:
        for peer in self._peers.values():
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)  # wakes threads that wait on it
            peer.close()


def _share(device: torch.device) -> tuple[Tensor, dict[str, Any], list[int]]:
    """A ring on `device`, [NUM_CHUNKS, CHUNK_BYTES] uint8; the handle and descriptors with which another process opens it."""
    if device.type == "cuda":
        ring = torch.empty(NUM_CHUNKS, CHUNK_BYTES, dtype=torch.uint8, device=device)
        # device, handle, bytes, offset, reference counter and its offset, event, whether the event must be waited for
        _, *parts = ring.untyped_storage()._share_cuda_()  # type: ignore[no-untyped-call]
        torch.cuda.current_stream(device).synchronize()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        return ring, {"gpu": uuid, "parts": [p.hex() if isinstance(p, bytes) else p for p in parts]}, []
    descriptor = os.memfd_create("corewarding-weights", os.MFD_CLOEXEC)  # no file name, so nothing is left behind
    os.ftruncate(descriptor, NUM_CHUNKS * CHUNK_BYTES)
    return _mapped(descriptor), {"gpu": None}, [descriptor]


def _open(handle: dict[str, Any], descriptors: list[int], device: torch.device) -> Tensor:
    """Opens the ring that `_share` made in another process."""
    if handle["gpu"] is None:
        return _mapped(descriptors[0])
    here = device.index if device.index is not None else torch.cuda.current_device() if device.type == "cuda" else None
    uuid = str(torch.cuda.get_device_properties(here).uuid) if here is not None else "none"
    if uuid != handle["gpu"]:
        raise RuntimeError(
            f"backend ipc: the learner's weights are on GPU {handle['gpu']}, this engine is on {uuid}; set "
            "publish.backend: gloo, or nccl with a GPU for each"
        )
    parts = [bytes.fromhex(p) if isinstance(p, str) else p for p in handle["parts"]]
    storage = torch.UntypedStorage._new_shared_cuda(here, *parts)  # type: ignore[attr-defined]
    return torch.empty(0, dtype=torch.uint8, device=device).set_(storage).view(NUM_CHUNKS, CHUNK_BYTES)


def _mapped(descriptor: int) -> Tensor:
    memory = mmap.mmap(descriptor, NUM_CHUNKS * CHUNK_BYTES)
    return torch.frombuffer(memory, dtype=torch.uint8).view(NUM_CHUNKS, CHUNK_BYTES)
