"""Every rank reads exactly its own part of the base model, bit for bit, and makes nothing larger than a chunk beside it."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from corewarding.dataflow.codec import decode
from corewarding.dataflow.ids import Version
from corewarding.learner import actor
from corewarding.learner.learner import Learner
from corewarding.learner.model import LoadedPolicy, load_policy
from corewarding.learner.settings import LearnerPlan, LearnerSettings
from corewarding.weights import model_loading
from corewarding.weights.model_files import ModelFilesError
from tests.tiny_models import write_model

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_group() -> Iterator[None]:
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def stored(folder: Path, *, tied: bool, dtype: torch.dtype, shard_size: str, **changes: Any) -> str:
    """A model of odd sizes, which no number of ranks divides, saved in `dtype`."""
    path = write_model(folder / "float32", tied=tied, vocab=53, **changes)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).to(dtype)
    model.save_pretrained(folder / "stored", max_shard_size=shard_size)
    return str(folder / "stored")


def load_as(rank: int, ranks: int, folder: str, **changes: Any) -> LoadedPolicy:
    """What that rank of so many loads; there are no others, and loading asks none."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    loaded = load_policy(folder, LearnerSettings(logprob_chunk_tokens=8), CPU, ranks, **changes)
    dist.destroy_process_group()
    return loaded


def whole(parts: list[LoadedPolicy]) -> dict[str, Tensor]:
    """The parameters of all ranks, put together."""
    named = [dict(part.model.model.named_parameters()) for part in parts]
    locals_of = {name: [one[name].to_local() for one in named] for name in named[0]}
    return {name: torch.cat(several) for name, several in locals_of.items()}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("dtype", "shard_size"),
    [(torch.float32, "1GB"), (torch.bfloat16, "20KB"), (torch.float16, "20KB"), (torch.bfloat16, "1GB")],
)
def test_one_two_and_three_ranks_load_what_from_pretrained_loads(
    tmp_path: Path, tied: bool, dtype: torch.dtype, shard_size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_loading, "CHUNK", 1000)  # several chunks a tensor
    folder = stored(tmp_path, tied=tied, dtype=dtype, shard_size=shard_size)
    assert (Path(folder) / "model.safetensors.index.json").exists() == (shard_size == "20KB")
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected, buffers = dict(plain.named_parameters()), dict(plain.named_buffers())
    for ranks in (1, 2, 3):
        parts = [load_as(rank, ranks, folder) for rank in range(ranks)]
        found = whole(parts)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert all(value.dtype == torch.float32 for value in found.values())
        for part in parts:
            assert set(part.base_dtypes) == {dtype}
            assert all(torch.equal(buffers[name], one) for name, one in part.model.model.named_buffers())
            assert (part.model.head.weight is part.model.embedding.weight) == tied
        sizes = [sum(p.to_local().numel() for p in part.model.parameters()) for part in parts]
        assert sum(sizes) == sum(p.numel() for p in plain.parameters())


@pytest.mark.parametrize("rope", ["linear", "dynamic", "yarn", "llama3", "longrope"])
def test_rotary_frequencies_are_computed_although_no_checkpoint_holds_them(tmp_path: Path, rope: str) -> None:
    factors = {"long_factor": [2.0] * 16, "short_factor": [1.0] * 16} if rope == "longrope" else {}
    bands = {"low_freq_factor": 1.0, "high_freq_factor": 4.0} if rope == "llama3" else {}
    path = write_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    common = {"rope_type": rope, "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps(config | {"rope_parameters": common | factors | bands}))
    plain = dict(AutoModelForCausalLM.from_pretrained(path).named_buffers())
    ours = dict(model_loading.empty_model(path, dtype=torch.float32, attention="sdpa", device=CPU).named_buffers())
    assert plain.keys() == ours.keys()
    assert all(torch.equal(plain[name], ours[name]) for name in plain)


class Largest(TorchDispatchMode):
    """Remembers the most bytes of one tensor's memory that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor) and not isinstance(one, DTensor) and not one.is_meta:
                self.num_bytes = max(self.num_bytes, one.untyped_storage().nbytes())
        return result


def test_loading_makes_nothing_larger_than_a_rank_s_part_of_the_largest_tensor_or_a_chunk(tmp_path: Path) -> None:
    folder = write_model(tmp_path, vocab=8001)
    part = -(-8001 // 4) * 64 * 4
    for dtype, chunk in ((torch.float32, part), (torch.bfloat16, 1000)):
        AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).save_pretrained(tmp_path / str(dtype))
        with pytest.MonkeyPatch.context() as patch, Largest() as largest:
            patch.setattr(model_loading, "CHUNK", chunk)
            load_as(1, 4, str(tmp_path / str(dtype)))
        assert part <= largest.num_bytes <= part + 4 * 64


def test_a_rank_reads_its_own_bytes_and_reports_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_loading, "CHUNK", 4096)
    folder = stored(tmp_path, tied=False, dtype=torch.bfloat16, shard_size="20KB")
    reports: list[tuple[int, int]] = []
    parts = [load_as(rank, 2, folder, on_read=lambda done, total: reports.append((done, total))) for rank in (0, 1)]
    ends = [report for report in reports if report[0] == report[1]]
    assert len(ends) == 2
    assert sum(total for _, total in ends) == 2 * sum(p.numel() for p in parts[0].model.parameters())
    assert len(reports) > 20


def test_a_rank_reports_while_it_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_loading, "CHUNK", 4096)
    plan = LearnerPlan(model_path=write_model(tmp_path), kl_coef=0.0, kl_reference="none", keep_teacher=False)
    for seconds, least, most in ((0.0, 20, 10**6), (1000.0, 0, 0)):
        monkeypatch.setattr(actor, "REPORT_S", seconds)
        rank = actor.LearnerActor(plan, rank=0, world_size=1, incarnation=3, bucket_bytes=1000, wire_dtype="float32")
        reports = list(rank.open("127.0.0.1", 0, b""))
        assert least <= len(reports) <= most
        assert all(done < later for (done, _), (later, _) in pairwise(reports))
        assert decode(rank.version()) == Version(incarnation=3, updates=0)


def test_the_initial_weights_are_kept_in_the_type_of_the_base_model_and_exactly(tmp_path: Path) -> None:
    folder = stored(tmp_path, tied=True, dtype=torch.bfloat16, shard_size="1GB")
    learner = Learner(LearnerPlan(model_path=folder, kl_coef=0.1, kl_reference="initial", keep_teacher=True))
    for kept, policy in zip(learner.sets.shards_of("initial"), learner.sets.shards_of("policy"), strict=True):
        assert kept.dtype == torch.bfloat16
        assert torch.equal(kept.float(), policy)
    assert all(teacher.dtype == torch.float32 for teacher in learner.sets.shards_of("teacher"))
    with torch.no_grad():
        for policy in learner.sets.shards_of("policy"):
            policy.add_(1.0)
    with learner.sets.using("initial"):
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for mine, theirs in zip(learner.sets.shards_of("policy"), base.parameters(), strict=True):
            assert torch.equal(mine, theirs)


def test_a_tied_head_that_differs_from_the_embedding_is_refused_and_an_equal_copy_is_not(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for change in (0.0, 1.0):
        head = tensors["model.embed_tokens.weight"] + change
        save_file(tensors | {"lm_head.weight": head}, tmp_path / "model.safetensors", metadata={"format": "pt"})
        if change:
            with pytest.raises(ModelFilesError, match="tie_word_embeddings to false"):
                load_as(0, 1, folder)
        else:
            load_as(0, 1, folder)


def test_a_rank_with_no_row_of_a_tensor_loads_the_rest(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    assert AutoConfig.from_pretrained(folder).head_dim == 32
    parts = [load_as(rank, 24, folder) for rank in range(24)]
    sizes = [dict(part.model.model.named_parameters())["model.layers.0.self_attn.k_norm.weight"] for part in parts]
    assert [one.to_local().numel() for one in sizes] == [2] * 16 + [0] * 8
    plain = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())
    assert all(torch.equal(value, plain[name]) for name, value in whole(parts).items())
