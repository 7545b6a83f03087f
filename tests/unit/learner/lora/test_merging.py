"""Merged weights: W + s B A, the same bits however they are cut, and what a receiver gets; the base weights do not change."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from corewarding.dataflow.ids import Version
from corewarding.learner.lora.merging import LowRank
from corewarding.weights.group import WeightGroup
from corewarding.weights.sender import WeightSender
from corewarding.weights.stream import Shard, receive
from tests.unit.learner.lora.learners import SCALE, adapted, values, weights

CPU = torch.device("cpu")


def test_a_product_by_hand() -> None:
    low = LowRank(a=torch.tensor([[1.0, 2.0, 0.0]]), b=torch.tensor([[1.0], [-1.0]]), scale=0.5)
    base = torch.arange(6.0)
    assert low.added_to(base, 0).tolist() == [0.5, 2.0, 2.0, 2.5, 3.0, 5.0]
    assert low.added_to(base[1:4], 1).tolist() == [2.0, 2.0, 2.5]
    assert base.tolist() == [0, 1, 2, 3, 4, 5]
    half = low.added_to(base.bfloat16(), 0)
    assert half.dtype == torch.float32


@pytest.mark.parametrize(("rows", "width"), [(3000, 257), (5, 300_000)])
def test_an_element_has_the_same_bits_however_a_weight_is_cut(rows: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(16, width, generator=generator), torch.randn(rows, 16, generator=generator)
    base = torch.randn(rows * width, generator=generator)
    low = LowRank(a=a, b=b, scale=2.0)
    whole = low.added_to(base, 0)
    torch.testing.assert_close(whole, base + 2.0 * (b @ a).view(-1))
    cuts = [0, *sorted(torch.randint(1, len(base), (12,), generator=generator).tolist()), len(base)]
    for start, end in itertools.pairwise(cuts):
        assert torch.equal(low.added_to(base[start:end], start), whole[start:end])


def test_a_merged_shard_reads_its_own_elements() -> None:
    base = torch.arange(24.0)
    low = LowRank(a=torch.ones(1, 4), b=torch.arange(6.0)[:, None], scale=1.0)
    plain = Shard(name="second", shape=(3, 4), start=2, local=base[14:22])  # rows 3 to 5 of a weight of 6 rows
    shard = low.merged_into(plain, offset=12)
    assert shard.part(2, 8).tolist() == (base[14:22] + torch.tensor([3, 3, 4, 4, 4, 4, 5, 5])).tolist()
    assert shard.part(5, 2).tolist() == [17 + 4, 18 + 4]
    assert torch.equal(shard.local, base[14:22])


@pytest.mark.parametrize("wire", [torch.float32, torch.bfloat16])
def test_a_receiver_gets_base_and_adapter_and_the_base_stays(tiny_model: str, wire: torch.dtype) -> None:
    learner = adapted(tiny_model)
    base = load_file(Path(tiny_model) / "model.safetensors")
    sender = WeightSender(0, 1, CPU, bucket_bytes=4096, wire_dtype=wire)
    rendezvous = sender.serve("policy", 1, 1, "gloo", 30.0)
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(WeightGroup, rendezvous, rank=1, device=CPU)
        sender.connect(rendezvous)
        group = joined.result(30)
        version = Version(incarnation=0, updates=0)
        manifest = sender.manifest("policy", version, learner.shards("policy"), with_checksums=True)
        assert manifest.total_bytes > 8 * 4096  # weights are cut within rows
        received = {spec.name: torch.full(spec.shape, torch.nan) for spec in manifest.tensors}
        taken = pool.submit(receive, group, manifest, received)
        sender.send("policy", manifest, learner.shards("policy"))
        taken.result(30)
        group.close()
    sender.close("policy")
    now = values(learner)
    for name, sent in weights(learner).items():
        assert torch.equal(received[name], sent.to(wire).float())
        adapter = learner.sets.adapters.get(name)
        whole = base[name] if adapter is None else base[name] + SCALE * now[adapter.b] @ now[adapter.a]
        torch.testing.assert_close(sent, whole)
        assert adapter is not None or torch.equal(sent, base[name])
