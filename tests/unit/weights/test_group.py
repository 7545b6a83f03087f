"""Weight groups: members meet, what rank 0 sends arrives, and every failure is a TransportError in bounded time."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist

from corewarding.weights.group import TransportError, WeightGroup, serve

CPU = torch.device("cpu")
BACKENDS = ["gloo", "ipc"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_broadcast_reaches_every_member_without_a_default_group(backend: str) -> None:
    rendezvous, store = serve(channel="policy", group_epoch=3, world_size=3, backend=backend, timeout_s=10)

    def member(rank: int) -> list[int]:
        group = WeightGroup(rendezvous, rank=rank, device=CPU)
        tensor = torch.zeros(4, dtype=torch.uint8)
        group.broadcast(tensor).wait()
        group.close()
        return tensor.tolist()

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(member, rank) for rank in (1, 2)]
        group = WeightGroup(rendezvous, rank=0, device=CPU, store=store)
        group.broadcast(torch.tensor([1, 2, 3, 4], dtype=torch.uint8)).wait()
        assert [future.result(10) for future in futures] == [[1, 2, 3, 4]] * 2
    group.close()
    group.close()
    with pytest.raises(TransportError, match="closed"):
        group.broadcast(torch.zeros(1))
    assert not dist.is_initialized()


@pytest.mark.parametrize("backend", BACKENDS)
def test_missing_members_are_named_at_the_timeout(backend: str) -> None:
    rendezvous, store = serve(channel="policy", group_epoch=1, world_size=3, backend=backend, timeout_s=0.5)
    started = time.monotonic()
    with pytest.raises(TransportError, match=r"ranks \[1, 2\] of 3 did not join .* within 0.5 s"):
        WeightGroup(rendezvous, rank=0, device=CPU, store=store)
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_member_that_stays_silent_ends_the_wait(backend: str) -> None:
    rendezvous, store = serve(channel="teacher", group_epoch=1, world_size=2, backend=backend, timeout_s=1)
    release = threading.Event()

    def silent() -> None:
        group = WeightGroup(rendezvous, rank=1, device=CPU)
        release.wait(10)
        group.close()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(silent)
        group = WeightGroup(rendezvous, rank=0, device=CPU, store=store)
        with pytest.raises(TransportError, match="teacher weight group 1, rank 0"):
            # Larger than the socket buffers: small sends complete locally.
            group.broadcast(torch.zeros(1 << 26, dtype=torch.uint8)).wait()
        release.set()
        future.result(10)
    group.close()


@pytest.mark.parametrize(
    ("backend", "host", "message"), [("mpi", None, "gloo, nccl or ipc"), ("gloo", "192.0.2.77", "listen")]
)
def test_a_place_that_cannot_be_served_is_refused(backend: str, host: str | None, message: str) -> None:
    with pytest.raises(TransportError, match=message):
        serve(channel="policy", group_epoch=1, world_size=2, backend=backend, timeout_s=1, host=host)
