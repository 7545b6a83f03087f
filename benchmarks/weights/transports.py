"""Speed of a weight transfer from a learner rank to engines on one node.

    python -m benchmarks.weights.transports [--mb 512] [--receivers 2] [--rounds 7] [--checksums]

Sends the same stream (bfloat16 tensors of 4 MiB) over gloo and `ipc` in turns; with a GPU for each process, over gloo and NCCL. The
receivers are processes of their own; a round ends when the last one has acknowledged. With `--device cuda` all processes share GPU 0
unless there are enough GPUs. Prints GB/s of one stream.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection

import torch

from corewarding.dataflow.ids import Version
from corewarding.dataflow.weights import Rendezvous, WeightManifest
from corewarding.weights.group import WeightGroup
from corewarding.weights.sender import WeightSender
from corewarding.weights.stream import Shard, receive

ELEMENTS = 1 << 21


def receiver(device: str, pipe: Connection) -> None:
    """Joins, receives and acknowledges, for each rendezvous that the pipe brings."""
    torch.set_num_threads(1)
    while (order := pipe.recv()) is not None:
        rendezvous, rank, rounds = order
        group = WeightGroup(rendezvous, rank=rank, device=torch.device(device))
        for _ in range(rounds):
            manifest: WeightManifest = pipe.recv()
            into = {
                spec.name: torch.empty(spec.shape, dtype=torch.bfloat16, device=device) for spec in manifest.tensors
            }
            pipe.send("ready")
            receive(group, manifest, into)
            pipe.send("done")
        group.close()


def turn(
    sender: WeightSender, backend: str, shards: list[Shard], pipes: list[Connection], epoch: int, with_checksums: bool
) -> float:
    """Seconds of one transfer in a new group, after one transfer to warm up."""
    rendezvous: Rendezvous = sender.serve("policy", epoch, len(pipes), backend, 60.0)
    for rank, pipe in enumerate(pipes, start=1):
        pipe.send((rendezvous, rank, 2))
    sender.connect(rendezvous)
    seconds = 0.0
    for _ in range(2):
        manifest = sender.manifest("policy", Version(incarnation=0, updates=1), shards, with_checksums=with_checksums)
        for pipe in pipes:
            pipe.send(manifest)
        for pipe in pipes:
            assert pipe.recv() == "ready"
        began = time.perf_counter()
        sender.send("policy", manifest, shards)
        for pipe in pipes:
            assert pipe.recv() == "done"
        seconds = time.perf_counter() - began
    sender.close("policy")
    return seconds


def compare(
    *, device: str, mb: int, receivers: int, rounds: int, bucket_mb: float, with_checksums: bool
) -> tuple[float, dict[str, list[float]]]:
    """GB of the stream, and seconds of each transfer by transport, in turns."""
    apart = device == "cuda" and torch.cuda.device_count() > receivers
    devices = [f"cuda:{rank if apart else 0}" if device == "cuda" else "cpu" for rank in range(receivers + 1)]
    shards = [
        Shard(name=f"w{i}", shape=(ELEMENTS,), start=0, local=torch.randn(ELEMENTS, device=devices[0]))
        for i in range(max(1, mb * 2**20 // (2 * ELEMENTS)))
    ]
    sender = WeightSender(
        0, 1, torch.device(devices[0]), bucket_bytes=int(bucket_mb * 2**20), wire_dtype=torch.bfloat16
    )
    context = multiprocessing.get_context("spawn")
    pipes = []
    for member in devices[1:]:
        ours, theirs = context.Pipe()
        context.Process(target=receiver, args=(member, theirs), daemon=True).start()
        pipes.append(ours)
    backends = ["gloo", "nccl"] if apart else ["gloo", "ipc"]
    seconds: dict[str, list[float]] = {backend: [] for backend in backends}
    epoch = 0
    for _ in range(rounds):
        for backend in backends:
            epoch += 1
            seconds[backend].append(turn(sender, backend, shards, pipes, epoch, with_checksums))
    for pipe in pipes:
        pipe.send(None)
    return sum(shard.local.numel() for shard in shards) * 2 / 1e9, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=512)
    parser.add_argument("--receivers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--bucket-mb", type=float, default=64.0)
    parser.add_argument(
        "--checksums", action="store_true", help="send checksums, as every checksum_every-th publish of a run does"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    its = parser.parse_args()
    torch.set_num_threads(1)
    size, seconds = compare(
        device=its.device,
        mb=its.mb,
        receivers=its.receivers,
        rounds=its.rounds,
        bucket_mb=its.bucket_mb,
        with_checksums=its.checksums,
    )
    print(
        "| transport | receivers | GB/s, median | min | max | against gloo, median of rounds |\n|---|---|---|---|---|---|"
    )
    for backend, all_ in seconds.items():
        ratios = [gloo / own for gloo, own in zip(seconds["gloo"], all_, strict=True)]
        print(
            f"| {backend} | {its.receivers} | {size / statistics.median(all_):.2f} | {size / max(all_):.2f} "
            f"| {size / min(all_):.2f} | {statistics.median(ratios):.2f}x |"
        )


if __name__ == "__main__":
    main()
