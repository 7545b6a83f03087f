"""The sender over two real learner ranks: shards arrive as whole tensors, and failures leave it usable."""

import dataclasses
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile

from corewarding.dataflow.ids import Version
from corewarding.dataflow.weights import Rendezvous, WeightManifest
from corewarding.weights.group import TransportError, WeightGroup
from corewarding.weights.sender import WeightSender
from corewarding.weights.stream import Shard, receive

CPU = torch.device("cpu")
BUCKET = 4096
PATIENCE_S = 60.0
SHAPES = {  # rows are dealt as FSDP2 does, ceil(n / 2) to the first rank: uneven, and none at all on the second
    "embed": (67, 33),
    "bias": (1,),
    "norm": (5,),
    "head": (130, 19, 2),
}
VERSION = Version(incarnation=2, updates=7)


def full(name: str, scale: int) -> torch.Tensor:
    rows, *rest = SHAPES[name]
    generator = torch.Generator().manual_seed(len(name))
    return torch.randn(rows * scale, *rest, generator=generator)


def shards_of(rank: int, scale: int) -> list[Shard]:
    shards = []
    for name in SHAPES:
        tensor = full(name, scale)
        width = tensor[0].numel()
        first = -(-len(tensor) // 2)
        start, stop = (0, first * width) if rank == 0 else (first * width, tensor.numel())
        shards.append(
            Shard(name=name, shape=tuple(tensor.shape), start=start, local=tensor.flatten()[start:stop].clone())
        )
    return shards


def peak_bytes(prof: profile) -> int:
    """Most bytes allocated at one time by torch within the profile."""
    held = peak = 0
    profiler: Any = prof.profiler
    for event in sorted(profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def learner_rank(rank: int, port: int, commands: Connection) -> None:
    """Obeys (method, scale, args) until None; answers with the result or the exception."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    sender = WeightSender(rank, 2, CPU, bucket_bytes=BUCKET, wire_dtype=torch.float32)
    commands.send("ready")
    while (command := commands.recv()) is not None:
        method, scale, args, kwargs = command
        if scale:
            args = (*args, shards_of(rank, scale))
        try:
            if method == "measured_send":
                with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
                    sender.send(*args)
                commands.send(peak_bytes(prof))
            else:
                commands.send(getattr(sender, method)(*args, **kwargs))
        except TransportError as error:
            commands.send(error)
    dist.destroy_process_group()


class Learner:
    """Both ranks, driven over pipes."""

    def __init__(self) -> None:
        context = get_context("forkserver")
        self.pipes: list[Connection] = []
        port = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False).port
        pairs = [context.Pipe() for _ in range(2)]
        self.pipes = [mine for mine, _ in pairs]
        self.processes = [
            context.Process(target=learner_rank, args=(rank, port, theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pairs)
        ]
        for process in self.processes:
            process.start()
        assert [pipe.recv() for pipe in self.pipes] == ["ready", "ready"]

    def tell(self, method: str, *args: Any, ranks: tuple[int, ...] = (0, 1), scale: int = 0, **kwargs: Any) -> None:
        for rank in ranks:
            self.pipes[rank].send((method, scale, args, kwargs))

    def answers(self, ranks: tuple[int, ...] = (0, 1)) -> list[Any]:
        for rank in ranks:
            assert self.pipes[rank].poll(PATIENCE_S), f"rank {rank} does not answer"
        return [self.pipes[rank].recv() for rank in ranks]

    def open(self, receivers: ThreadPoolExecutor, num: int, *, epoch: int) -> list[WeightGroup]:
        self.tell("serve", "policy", epoch, num, "gloo", PATIENCE_S, ranks=(0,))
        (rendezvous,) = self.answers((0,))
        self.tell("connect", rendezvous, ranks=(0,))
        joins = [receivers.submit(WeightGroup, rendezvous, rank=i + 1, device=CPU) for i in range(num)]
        assert self.answers((0,)) == [None]
        return [join.result(PATIENCE_S) for join in joins]

    def manifest(self, *, scale: int = 1, with_checksums: bool = True) -> WeightManifest:
        for rank in (0, 1):
            self.pipes[rank].send(("manifest", scale, ("policy", VERSION), {"with_checksums": with_checksums}))
        first, second = self.answers()
        assert first == second
        return first

    def send(self, manifest: WeightManifest, *, scale: int = 1, method: str = "send") -> None:
        self.tell(method, "policy", manifest, scale=scale)

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(PATIENCE_S)
            assert process.exitcode == 0


@pytest.fixture(scope="module")
def learner() -> Iterator[Learner]:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    learner = Learner()
    yield learner
    learner.close()


@pytest.fixture
def receivers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def take(pool: ThreadPoolExecutor, group: WeightGroup, manifest: WeightManifest) -> Future[dict[str, torch.Tensor]]:
    def run() -> dict[str, torch.Tensor]:
        into = {spec.name: torch.full(spec.shape, torch.nan) for spec in manifest.tensors}
        receive(group, manifest, into)
        return into

    return pool.submit(run)


def test_uneven_shards_arrive_whole_at_every_receiver(learner: Learner, receivers: ThreadPoolExecutor) -> None:
    groups = learner.open(receivers, 2, epoch=1)
    for with_checksums in (True, False):
        manifest = learner.manifest(with_checksums=with_checksums)
        assert manifest.group_epoch == 1
        assert manifest.total_bytes == 4 * (67 * 33 + 1 + 5 + 130 * 19 * 2)
        assert manifest.total_bytes > 4 * BUCKET  # tensors span buckets
        learner.send(manifest)
        futures = [take(receivers, group, manifest) for group in groups]
        assert learner.answers() == [None, None]
        for future in futures:
            received = future.result(PATIENCE_S)
            assert all(torch.equal(received[name], full(name, 1)) for name in SHAPES)
    for group in groups:
        group.close()


def test_a_corrupted_checksum_is_refused(learner: Learner, receivers: ThreadPoolExecutor) -> None:
    (group,) = learner.open(receivers, 1, epoch=2)
    manifest = learner.manifest()
    tensors = list(manifest.tensors)
    tensors[2] = dataclasses.replace(tensors[2], checksum=tensors[2].checksum ^ 1)
    learner.send(manifest)
    future = take(receivers, group, dataclasses.replace(manifest, tensors=tuple(tensors)))
    assert learner.answers() == [None, None]
    with pytest.raises(TransportError, match=r"norm of policy version 2\.7: checksum"):
        future.result(PATIENCE_S)
    group.close()


def test_a_lost_receiver_fails_the_transfer_and_a_new_group_carries_on(
    learner: Learner, receivers: ThreadPoolExecutor
) -> None:
    scale = 200  # more than the sockets can hold, so that the loss is met in mid-stream
    lost, kept = learner.open(receivers, 2, epoch=3)
    manifest = learner.manifest(scale=scale)
    learner.send(manifest, scale=scale)
    future = take(receivers, kept, manifest)
    lost.broadcast(torch.empty(BUCKET, dtype=torch.uint8)).wait()
    lost.close()
    root, other = learner.answers()
    assert isinstance(root, TransportError)
    assert other is None  # the other rank sent everything: the ranks are still in step
    with pytest.raises(TransportError):
        future.result(15)
    kept.close()

    (group,) = learner.open(receivers, 1, epoch=4)
    manifest = learner.manifest()
    assert manifest.group_epoch == 4
    learner.send(manifest)
    received = take(receivers, group, manifest)
    assert learner.answers() == [None, None]
    assert torch.equal(received.result(PATIENCE_S)["embed"], full("embed", 1))
    group.close()


def test_a_rank_holds_two_buckets_and_never_a_full_tensor_and_keeps_them(
    learner: Learner, receivers: ThreadPoolExecutor
) -> None:
    scale = 6
    (group,) = learner.open(receivers, 1, epoch=5)
    manifest = learner.manifest(scale=scale, with_checksums=False)
    assert manifest.total_bytes > 30 * BUCKET
    layout = 4096  # tables of who holds what, some integers per tensor and rank
    for new_bytes in (2 * BUCKET, 0):
        learner.send(manifest, scale=scale, method="measured_send")
        future = take(receivers, group, manifest)
        assert all(peak <= new_bytes + layout for peak in learner.answers())
        assert torch.equal(future.result(PATIENCE_S)["head"], full("head", scale))
    group.close()


def test_a_receiver_that_never_joins_is_named(learner: Learner) -> None:
    learner.tell("serve", "teacher", 1, 2, "gloo", 0.3, ranks=(0,))
    (rendezvous,) = learner.answers((0,))
    assert isinstance(rendezvous, Rendezvous)
    learner.tell("connect", rendezvous, ranks=(0,))
    (error,) = learner.answers((0,))
    assert isinstance(error, TransportError)
    assert "ranks [1, 2] of 3 did not join" in str(error)


def test_shards_that_leave_a_hole_are_refused() -> None:
    sender = WeightSender(0, 1, CPU, bucket_bytes=64, wire_dtype=torch.bfloat16)
    rendezvous = sender.serve("policy", 1, 1, "gloo", 5.0)
    with ThreadPoolExecutor(1) as pool:
        join = pool.submit(WeightGroup, rendezvous, rank=1, device=CPU)
        sender.connect(rendezvous)
        group = join.result(5)
    hole = [Shard(name="w", shape=(4,), start=1, local=torch.zeros(3))]
    manifest = sender.manifest("policy", VERSION, hole, with_checksums=True)
    assert manifest.tensors[0].dtype == "bfloat16"
    with pytest.raises(TransportError, match="do not tile"):
        sender.send("policy", manifest, hole)
    group.close()
    sender.close("policy")
