"""Broadcasts through mapped memory: between processes, over many rounds of the ring, and what a lost process does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from corewarding.dataflow.weights import Rendezvous
from corewarding.weights.group import TransportError, WeightGroup, serve
from corewarding.weights.ipc import CHUNK_BYTES, NUM_CHUNKS
from corewarding.weights.sealed_store import SealedStore

CPU = torch.device("cpu")
SIZES = [1, CHUNK_BYTES, 0, 3 * NUM_CHUNKS * CHUNK_BYTES + 5, CHUNK_BYTES + 1]


def content(seed: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (size,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def receiver(rendezvous: Rendezvous, rank: int, pipe: Connection) -> None:
    """Takes all of SIZES, two at a time as the stream does, says which came right, and waits to be told to end."""
    torch.set_num_threads(1)
    group = WeightGroup(rendezvous, rank=rank, device=CPU)
    tensors = [torch.zeros(size, dtype=torch.uint8) for size in SIZES]
    works = [group.broadcast(tensor) for tensor in tensors]
    for work in works:
        work.wait()
    pipe.send([torch.equal(tensor, content(seed, tensor.numel())) for seed, tensor in enumerate(tensors)])
    pipe.recv()
    group.close()


Members = tuple[WeightGroup, list[multiprocessing.process.BaseProcess], list[Connection]]


@pytest.fixture
def members() -> Iterator[Members]:
    rendezvous, store = serve(channel="policy", group_epoch=1, world_size=3, backend="ipc", timeout_s=30)
    context = multiprocessing.get_context("forkserver")
    pipes = [context.Pipe() for _ in range(2)]
    processes = [
        context.Process(target=receiver, args=(rendezvous, rank, pipe[1])) for rank, pipe in enumerate(pipes, start=1)
    ]
    for process in processes:
        process.start()
    group = WeightGroup(rendezvous, rank=0, device=CPU, store=store)
    yield group, processes, [pipe[0] for pipe in pipes]
    group.close()
    for process in processes:
        process.kill()
        process.join()


def test_processes_receive_what_was_sent_and_nothing_is_left(members: Members) -> None:
    group, processes, pipes = members
    for work in [group.broadcast(content(seed, size)) for seed, size in enumerate(SIZES)]:
        work.wait()
    for pipe in pipes:
        assert pipe.poll(30)
        assert pipe.recv() == [True] * len(SIZES)
    assert "memfd:corewarding-weights" in Path("/proc/self/maps").read_text()
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(None)
        process.join(30)
        assert process.exitcode == 0
    group.close()
    assert "memfd:corewarding-weights" not in Path("/proc/self/maps").read_text()


def test_a_killed_receiver_is_told_at_once(members: Members) -> None:
    group, processes, _ = members
    os.kill(processes[1].pid or 0, signal.SIGKILL)
    began = time.monotonic()
    large = torch.zeros(2 * NUM_CHUNKS * CHUNK_BYTES, dtype=torch.uint8)
    with pytest.raises(TransportError, match="rank 2 has left"):
        group.broadcast(large).wait()
    assert time.monotonic() - began < 10  # of the 30 that it would wait for one that only sleeps


def test_closing_wakes_a_wait() -> None:
    rendezvous, store = serve(channel="policy", group_epoch=1, world_size=2, backend="ipc", timeout_s=30)
    with ThreadPoolExecutor(1) as pool:
        joining = pool.submit(WeightGroup, rendezvous, rank=1, device=CPU)
        sender = WeightGroup(rendezvous, rank=0, device=CPU, store=store)
        taker = joining.result(10)
        work, queued = taker.broadcast(torch.zeros(1)), taker.broadcast(torch.zeros(1))
        timer = threading.Timer(0.3, taker.close)
        timer.start()
        with pytest.raises(TransportError, match="rank 0 has left"):
            work.wait()
        with pytest.raises(TransportError, match="rank 0 has left"):
            queued.wait()
        timer.join()
        with pytest.raises(TransportError, match="rank 1 has left"):
            sender.broadcast(torch.zeros(1)).wait()
    sender.close()


def test_another_node_is_told_the_remedy() -> None:
    rendezvous, store = serve(channel="policy", group_epoch=1, world_size=2, backend="ipc", timeout_s=5)
    prefix = SealedStore(store, rendezvous.key)
    prefix.set("joined/0", "1")
    prefix.set("ipc", "a-name-that-nobody-has-here")
    with pytest.raises(TransportError, match=r"not on this node .*publish\.backend: gloo"):
        WeightGroup(rendezvous, rank=1, device=CPU)


def test_a_stranger_that_sends_no_rank_is_sent_away() -> None:
    rendezvous, store = serve(channel="policy", group_epoch=1, world_size=2, backend="ipc", timeout_s=10)

    def stranger() -> bytes:
        client = dist.TCPStore(rendezvous.host, rendezvous.port, timeout=timedelta(seconds=10), wait_for_workers=False)
        name = SealedStore(client, rendezvous.key).get("ipc").decode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as own:
            own.connect(f"\0{name}")
            own.sendall(b"x")
            own.shutdown(socket.SHUT_WR)
            return own.recv(1)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(stranger)
        joining = pool.submit(lambda: (first.result(10), WeightGroup(rendezvous, rank=1, device=CPU)))
        # Rank 1 comes when the stranger has gone, which is after the barrier.
        SealedStore(store, rendezvous.key).set("joined/1", "1")
        sender = WeightGroup(rendezvous, rank=0, device=CPU, store=store)
        answer, taker = joining.result(10)
    assert answer == b""
    taker.close()
    sender.close()


def test_a_member_that_connects_and_says_nothing_ends_the_meeting() -> None:
    rendezvous, store = serve(channel="policy", group_epoch=1, world_size=2, backend="ipc", timeout_s=0.5)
    SealedStore(store, rendezvous.key).set("joined/1", "1")
    release = threading.Event()

    def mute() -> None:
        client = dist.TCPStore(rendezvous.host, rendezvous.port, timeout=timedelta(seconds=10), wait_for_workers=False)
        name = SealedStore(client, rendezvous.key).get("ipc").decode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as own:
            own.connect(f"\0{name}")
            release.wait(10)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(mute)
        with pytest.raises(TransportError, match="backend ipc: timed out"):
            WeightGroup(rendezvous, rank=0, device=CPU, store=store)
        release.set()
        future.result(10)
