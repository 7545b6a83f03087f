"""The gradient of an update, and the weights that leave the learner, are the same on one, two and four ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file

from corewarding.learner.learner import Learner
from corewarding.weights.stream import Shard
from tests.toy_models import write_toy
from tests.unit.learner.conftest import write_tokenizer
from tests.unit.learner.gradients import distance, learner_gradient, plain_gradient, plan_for, samples_of

NAMES = ("qwen3 tied", "qwen3_moe", "gemma3", "cohere2")
CUTS = ((10_000, 200), (96, 48), (40, 24), (30, 1))
"""micro_batch_tokens and row_tokens."""


def _rank(rank: int, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{ranks}", rank=rank, world_size=ranks)
    found = {}
    for name in NAMES:
        learner = Learner(plan_for(f"{folder}/{name}"), rank=rank, world_size=ranks)
        shards = [(s.name, s.shape, s.start, s.local) for s in learner.shards("policy")]
        learner.stage()
        learner.write(Path(folder, f"{name} state of {ranks}"))
        dist.barrier()
        if rank == 0:
            learner.export(Path(folder, f"{name} state of {ranks}"), Path(folder, f"{name} of {ranks}"))
        gradients = [
            learner_gradient(learner, samples_of(5), micro_batch_tokens=micro, row_tokens=row) for micro, row in CUTS
        ]
        found[name] = {"gradients": gradients, "shards": shards}
    torch.save(found, f"{folder}/found-{ranks}-{rank}")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base models, and what the learners on 1, 2 and 4 ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    for name in NAMES:
        write_toy(name, folder / name)
        write_tokenizer(folder / name)
    for ranks in (1, 2, 4):
        mp.start_processes(_rank, (ranks, str(folder)), nprocs=ranks, start_method="forkserver")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_ranks_has_the_gradient_of_separate_sequences(name: str, folder: Path) -> None:
    expected = plain_gradient(name, samples_of(5), plan_for(str(folder / name)))
    for ranks in (1, 2, 4):
        for rank in range(ranks):
            for gradient in torch.load(folder / f"found-{ranks}-{rank}", weights_only=True)[name]["gradients"]:
                assert distance(gradient, expected) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_ranks_sends_and_exports_the_tensors_of_the_base_model(name: str, folder: Path) -> None:
    base = load_file(folder / name / "model.safetensors")
    for ranks in (1, 2, 4):
        exported = load_file(folder / f"{name} of {ranks}" / "model.safetensors")
        sent = {key: torch.full_like(values, float("nan")) for key, values in base.items()}
        for rank in range(ranks):
            shards = torch.load(folder / f"found-{ranks}-{rank}", weights_only=True)[name]["shards"]
            for shard in (Shard(name=n, shape=shape, start=start, local=local) for n, shape, start, local in shards):
                assert shard.shape == tuple(base[shard.name].shape)
                sent[shard.name].view(-1)[shard.start : shard.stop] = shard.local
        for found in (exported, sent):
            assert found.keys() == base.keys()
            assert all(torch.equal(found[key], values) for key, values in base.items())
