"""A learner whose state is in the host's memory makes the same numbers, bit for bit, on every path; chunks and blocks by hand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor
from torch.distributed.tensor import DTensor

from corewarding.dataflow.ids import Channel, SetName
from corewarding.learner.device import host_like
from corewarding.learner.learner import Learner
from corewarding.learner.lora.settings import LoraSettings
from corewarding.learner.model import local_shard
from corewarding.learner.offload import MEANS, OffloadedAdamW, Piece, cut, stream
from corewarding.learner.settings import LearnerSettings
from corewarding.weights.group import WeightGroup
from corewarding.weights.sender import WeightSender
from corewarding.weights.stream import receive
from tests.tiny_models import write_model
from tests.unit.learner.conftest import VOCAB
from tests.unit.learner.test_learner import batch, plan_of, save

ALL = ("optimizer", "teacher", "reference")
FULL, LORA = LoraSettings(), LoraSettings(rank=4, alpha=10)
CPU = torch.device("cpu")


def learner_of(model: str, *offload: Any, lora: LoraSettings = FULL, **changes: Any) -> Learner:
    ranks = {name: changes.pop(name) for name in ("rank", "world_size") if name in changes}
    settings = LearnerSettings(micro_batch_tokens=40, row_tokens=24, offload=offload, lora=lora)
    return Learner(plan_of(model, learner=settings, digest=True, **changes), **ranks)


def pair(model: str, **changes: Any) -> tuple[Learner, Learner]:
    """One with everything on its device, and one with everything in the host's memory."""
    return learner_of(model, **changes), learner_of(model, *ALL, **changes)


@pytest.mark.parametrize("lora", [FULL, LORA], ids=["all", "lora"])
@pytest.mark.parametrize("reference", ["teacher", "initial"])
def test_three_updates_have_the_same_bits(tiny_model: str, reference: Any, lora: LoraSettings) -> None:
    plain, other = pair(tiny_model, kl_reference=reference, lora=lora)
    for update in (1, 2, 3):
        mine, theirs = (one.update(batch(update)) for one in (other, plain))
        assert mine.digest == theirs.digest != ""
        for result in (mine, theirs):
            del result.metrics.scalars["throughput/train_tokens_per_s"]
        assert mine.metrics.scalars == theirs.metrics.scalars
    assert other.sets.kept == plain.sets.kept
    assert all(other.sets.is_offloaded(name) and not plain.sets.is_offloaded(name) for name in other.sets.kept)
    samples = batch(4).samples
    sets: tuple[SetName, ...] = ("policy", "teacher", "initial") if reference == "initial" else ("policy", "teacher")
    for which in sets:
        for own, expected in zip(other.logprobs(samples, which), plain.logprobs(samples, which), strict=True):
            np.testing.assert_array_equal(own, expected)
    statistics = [
        [(it.id, it.entropy, it.self_certainty) for it in one.token_statistics(samples)] for one in (other, plain)
    ]
    assert statistics[0] == statistics[1]
    assert same_state(plain, other)


def same_state(plain: Learner, other: Learner) -> bool:
    """Whether means and steps are the same, and the other's in memory of their own."""
    for theirs, mine in zip(plain.sets.parameters, other.sets.parameters, strict=True):
        expected, state = plain.optimizer.state[theirs], other.optimizer.state[mine]
        assert not any(isinstance(value, DTensor) for value in state.values())
        if state.keys() != expected.keys() or int(state["step"]) != int(expected["step"]):
            return False
        if not all(torch.equal(state[mean], local_shard(expected[mean])) for mean in MEANS):
            return False
    return True


@pytest.mark.parametrize("offload", [("optimizer",), ("teacher",), ("reference",)])
def test_each_part_can_be_offloaded_by_itself(tiny_model: str, offload: tuple[str, ...]) -> None:
    plain = learner_of(tiny_model, kl_reference="initial")
    other = learner_of(tiny_model, *offload, kl_reference="initial")
    for update in (1, 2):
        assert other.update(batch(update)).digest == plain.update(batch(update)).digest
    assert isinstance(other.optimizer, OffloadedAdamW) == ("optimizer" in offload)
    assert other.sets.is_offloaded("teacher") == ("teacher" in offload)
    assert other.sets.is_offloaded("initial") == ("reference" in offload)


@pytest.mark.parametrize("lora", [FULL, LORA], ids=["all", "lora"])
def test_checkpoints_and_exports_are_the_same_and_continue_with_and_without(
    tiny_model: str, tmp_path: Path, lora: LoraSettings
) -> None:
    plain, other = pair(tiny_model, kl_reference="initial", lora=lora)
    for name, one in (("plain", plain), ("other", other)):
        one.update(batch(1))
        save(one, tmp_path / name)
        one.export(tmp_path / name, tmp_path / f"{name}-teacher", "teacher")
    assert contents(tmp_path / "other") == contents(tmp_path / "plain")
    assert contents(tmp_path / "other-teacher") == contents(tmp_path / "plain-teacher")
    resumed = [learner_of(tiny_model, *keys, kl_reference="initial", lora=lora) for keys in ((), ALL)]
    resumed[0].load(tmp_path / "other", incarnation=0)
    resumed[1].load(tmp_path / "plain", incarnation=0)
    for update in (2, 3):
        assert len({one.update(batch(update)).digest for one in (plain, other, *resumed)}) == 1
    assert same_state(plain, resumed[1])
    save(other, tmp_path / "later")  # into the memory of the first
    save(plain, tmp_path / "expected")
    assert contents(tmp_path / "later") == contents(tmp_path / "expected")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_after_an_error_the_module_holds_the_policy_again(tiny_model: str) -> None:
    learner = learner_of(tiny_model, *ALL)
    learner.update(batch(1))
    before = learner.digest()
    held = []

    def fail() -> None:
        with learner.sets.using("teacher"):
            held.extend(local.clone() for local in learner.sets.shards_of("policy"))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert learner.digest() == before
    assert all(torch.equal(a, b) for a, b in zip(held, learner.sets.shards_of("teacher"), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(held, learner.sets.shards_of("policy"), strict=True))


@pytest.mark.parametrize("lora", [FULL, LORA], ids=["all", "lora"])
@pytest.mark.parametrize("channel", ["policy", "teacher"])
def test_engines_receive_the_same_weights(tiny_model: str, channel: Channel, lora: LoraSettings) -> None:
    plain, other = pair(tiny_model, lora=lora)
    for one in (plain, other):
        one.update(batch(1))
    (expected, sums), (received, own) = (sent_by(one, channel) for one in (plain, other))
    assert own == sums
    assert received.keys() == expected.keys()
    assert all(torch.equal(received[name], values) for name, values in expected.items())


def sent_by(learner: Learner, channel: Channel) -> tuple[dict[str, Tensor], list[int | None]]:
    """What a receiver gets in bfloat16, in buckets that cut the weights, and the announced checksums."""
    sender = WeightSender(0, 1, CPU, bucket_bytes=4096, wire_dtype=torch.bfloat16)
    rendezvous = sender.serve(channel, 1, 1, "gloo", 30.0)
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(WeightGroup, rendezvous, rank=1, device=CPU)
        sender.connect(rendezvous)
        group = joined.result(30)
        version = learner.version_of(channel)
        manifest = sender.manifest(channel, version, learner.shards(channel), with_checksums=True)
        received = {spec.name: torch.full(spec.shape, torch.nan) for spec in manifest.tensors}
        taken = pool.submit(receive, group, manifest, received)
        sender.send(channel, manifest, learner.shards(channel))
        taken.result(30)
        group.close()
    sender.close(channel)
    return received, [spec.checksum for spec in manifest.tensors]


def _rank(rank: int, folder: str, model: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = []
    for lora in (FULL, LORA):
        plain, other = pair(model, kl_reference="initial", lora=lora, rank=rank, world_size=2)
        found += [[one.update(batch(update)).digest for update in (1, 2)] for one in (plain, other)]
        for mine, theirs in zip(other.shards("teacher"), plain.shards("teacher"), strict=True):
            values = [one.part(one.start, one.stop - one.start) for one in (mine, theirs)]
            assert torch.equal(*values)
        save(other, Path(folder) / "saved")
        torch.distributed.barrier()
        plain.load(Path(folder) / "saved", incarnation=0)
        found += [[one.update(batch(3)).digest for _ in (1,)] for one in (plain, other)]
    torch.save(found, f"{folder}/rank-{rank}")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_ranks_have_the_same_bits(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", vocab=VOCAB, spread=0.02)
    mp.start_processes(_rank, (str(tmp_path), model), nprocs=2, start_method="forkserver")
    for rank in (0, 1):
        found = torch.load(tmp_path / f"rank-{rank}")
        assert all(theirs == mine for theirs, mine in zip(found[::2], found[1::2], strict=True))


def test_chunks_by_hand() -> None:
    def piece(index: int, start: int, count: int, offset: int) -> Piece:
        return Piece(index=index, start=start, count=count, offset=offset)

    assert cut([5, 7], 64) == [[piece(0, 0, 5, 0), piece(1, 0, 7, 16)]]
    assert cut([20, 0, 40], 32) == [[piece(0, 0, 20, 0)], [piece(2, 0, 32, 0)], [piece(2, 32, 8, 0)]]
    assert cut([20, 40], 64) == [[piece(0, 0, 20, 0), piece(1, 0, 32, 32)], [piece(1, 32, 8, 0)]]
    assert cut([20, 0, 40], None) == [[piece(0, 0, 20, 0)], [piece(2, 0, 40, 0)]]
    assert cut([0, 0], 32) == cut([], None) == []


@pytest.mark.parametrize("chunk", [None, 16, 48, 4096])
def test_what_is_streamed_is_changed_in_place_and_each_element_once(chunk: int | None) -> None:
    first = [torch.arange(50.0).view(5, 10), torch.empty(0), torch.arange(33.0)]
    second = [one + 100 for one in first]
    expected = [[2 * one for one in first], [one - 1 for one in second]]

    def work(pieces: list[Piece], brought: list[list[Tensor]]) -> None:
        assert all(len(views) == len(pieces) for views in brought)
        assert chunk is None or sum(len(one) for one in brought[0]) <= chunk
        for one, other in zip(*brought, strict=True):
            one.mul_(2)
            other.sub_(1)

    stream([first, second], CPU, work, chunk=chunk)
    for found, wanted in zip([first, second], expected, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("chunk", [None, 16, 1024])
def test_adamw_in_chunks_is_torchs(chunk: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(37, 53), (7,), (64, 64), (3,)]
    values = [torch.randn(shape, generator=generator) for shape in shapes]
    numbers: dict[str, Any] = {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.3, "fused": True}
    ours, theirs = ([torch.nn.Parameter(value.clone()) for value in values] for _ in (0, 1))
    mine, expected = OffloadedAdamW(ours, **numbers), torch.optim.AdamW(theirs, **numbers)
    mine.chunk = chunk
    for step in range(3):
        for own, other in zip(ours[step == 0 : 3], theirs[step == 0 : 3], strict=True):  # the last never has a gradient
            own.grad = torch.randn(own.shape, generator=generator)
            other.grad = own.grad.clone()
        for optimizer in (mine, expected):
            optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    assert set(mine.state) == set(ours[:3])
    for own, other in zip(ours, theirs, strict=True):
        assert torch.equal(own, other)
        assert all(torch.equal(mine.state[own][key], value) for key, value in expected.state[other].items())


def test_memory_of_the_host_is_cut_from_few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """60, 8, 8 and 100 float32 take 256, 64, 64 and 448 bytes: a block of 256, another one, and one of 512."""
    monkeypatch.setattr("corewarding.learner.device.BLOCK", 256)
    likes = [torch.empty(6, 10), torch.empty(8), torch.empty(0, 4), torch.empty(8), torch.empty(100)]
    found = host_like(likes, [torch.float32] * 5)
    assert [one.shape for one in found] == [one.shape for one in likes]
    assert [one.untyped_storage().nbytes() for one in found if one.numel()] == [256, 256, 256, 512]
    assert found[1].untyped_storage().data_ptr() == found[3].untyped_storage().data_ptr()
    for number, one in enumerate(found):
        one.fill_(number)
    assert all(bool((one == number).all()) for number, one in enumerate(found))
    (half,) = host_like([torch.empty(3, 5)], [torch.bfloat16])
    assert (half.dtype, half.shape) == (torch.bfloat16, (3, 5))
    assert host_like([], []) == []
