"""How much memory a learner rank needs to load its part of a model.

    python -m benchmarks.models.loading [--gb 1] [--ranks 4]

Writes a Qwen3 model of random float32 weights in shards, loads it on ranks that are processes of their own, and prints for each how
far its resident memory rose above what it was before, beside the bound: its part of the weights + 2 x the largest tensor + 100 MB.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from corewarding.learner.model import load_policy, local_shard
from corewarding.learner.settings import LearnerSettings
from corewarding.weights.model_files import INDEX

MB = 10**6
ALLOWED = 100 * MB
LAYER_WIDTH = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """One rank, in bytes."""

    rank: int
    start: int  # resident before loading
    peak: int  # most that was resident while loading
    part: int  # its part of the weights
    largest: int  # the model's largest tensor, whole
    seconds: float

    @property
    def bound(self) -> int:
        """The most that `peak` may be above `start`."""
        return self.part + 2 * self.largest + ALLOWED


def write_model(folder: Path, num_bytes: int, *, width: int = LAYER_WIDTH, vocabulary: int = 16000) -> int:
    """A model of about `num_bytes`, a shard for each layer, made a tensor at a time; returns its true size."""
    layer = 4 * (2 * width * width + 2 * width * width // 4 + 3 * width * 3 * width)
    num_layers = max(1, round((num_bytes - 2 * 4 * vocabulary * width) / layer))
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=num_layers, head_dim=64,
        num_attention_heads=width // 64, num_key_value_heads=width // 256, tie_word_embeddings=False,
        architectures=["Qwen3ForCausalLM"], max_position_embeddings=4096,
    )  # fmt: skip
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in Qwen3ForCausalLM(config).named_parameters()}
    shards: dict[str, list[str]] = {}
    for name in shapes:
        shards.setdefault(".".join(name.split(".")[:3]), []).append(name)
    index = {}
    for number, names in enumerate(shards.values()):
        file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        tensors = {name: torch.randn(shapes[name]) * 0.02 for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(names, file)
    (folder / INDEX).write_text(json.dumps({"weight_map": index}))
    return 4 * sum(torch.Size(shape).numel() for shape in shapes.values())


def measure(folder: Path, ranks: int) -> list[Loaded]:
    """Loads the model on so many processes."""
    with tempfile.TemporaryDirectory() as meeting:
        mp.spawn(_rank, (ranks, str(folder), meeting), nprocs=ranks)
        return [Loaded(**json.loads(Path(meeting, f"rank-{rank}").read_text())) for rank in range(ranks)]


def _rank(rank: int, ranks: int, folder: str, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}/meet", rank=rank, world_size=ranks)
    dist.all_reduce(torch.ones(1))  # its buffers are no part of loading
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    start, began = _status("VmRSS"), time.perf_counter()
    loaded = load_policy(folder, LearnerSettings(), torch.device("cpu"), ranks)
    found = Loaded(
        rank=rank,
        start=start,
        peak=_status("VmHWM"),
        part=sum(local_shard(p).nbytes for p in loaded.model.parameters()),
        largest=max(4 * p.numel() for p in loaded.model.parameters()),
        seconds=time.perf_counter() - began,
    )
    Path(meeting, f"rank-{rank}").write_text(json.dumps(asdict(found)))
    dist.barrier()
    dist.destroy_process_group()


def _status(name: str) -> int:
    """A number of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=1.0, help="size of the model")
    parser.add_argument("--ranks", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = write_model(Path(folder), round(arguments.gb * 1e9))
        print(f"{size / MB:,.0f} MB in float32, {arguments.ranks} ranks; MB")
        print("| rank | part | largest tensor | peak above start | bound | seconds |\n|---|---|---|---|---|---|")
        for one in measure(Path(folder), arguments.ranks):
            columns = [one.part, one.largest, one.peak - one.start, one.bound]
            print(f"| {one.rank} | {' | '.join(f'{c / MB:,.0f}' for c in columns)} | {one.seconds:.1f} |")


if __name__ == "__main__":
    main()
