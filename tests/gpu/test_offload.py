"""State in the host's memory: the same bits as on the device, and the memory of the GPU that the plan says it saves."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from corewarding.dataflow.carriers import TrainBatch
from corewarding.learner import teacher
from corewarding.learner.learner import Learner
from corewarding.learner.model import local_shard
from corewarding.learner.offload import MEANS
from corewarding.learner.settings import LearnerPlan, LearnerSettings, TeacherSettings, TrainSettings
from tests.unit.learner.conftest import make_samples

ALL = ("optimizer", "teacher", "reference")
CHUNK = 2**18  # elements: several chunks of one tensor, and several tensors in one chunk


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """13 million parameters in bfloat16, most of them in the embedding."""
    where = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=40_000, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=512, architectures=["Qwen3ForCausalLM"],
    )  # fmt: skip
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(where)
    return str(where)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("corewarding.learner.offload.streamed_elements", lambda device: CHUNK)
    yield
    torch.use_deterministic_algorithms(False)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def learner_of(folder: str, device: str, *offload: Any, digest: bool = True, **keys: Any) -> Learner:
    settings = LearnerSettings.model_validate(
        {"micro_batch_tokens": 256, "row_tokens": 64, "device": device, "offload": offload}
        | ({"gpus_per_rank": 1} if device == "cuda" else {})
        | keys
    )
    return Learner(
        LearnerPlan(
            model_path=folder, kl_coef=0.01, kl_reference="initial", keep_teacher=True, digest=digest, learner=settings,
            train=TrainSettings(lr=1e-3, updates=4, warmup_frac=0.0), teacher=TeacherSettings(alpha_start=0.3),
        )
    )  # fmt: skip


def batch(update: int) -> TrainBatch:
    samples = make_samples(16, seed=update, version=update - 1, group_size=2)
    return TrainBatch(incarnation=0, update=update, samples=samples)


def test_the_same_gradients_make_the_same_bits(device: str, folder: str) -> None:
    plain, other = learner_of(folder, device), learner_of(folder, device, *ALL)
    for step in range(3):
        for one in (plain, other):
            for parameter in one.sets.parameters:
                parameter.grad = parameter.detach() * (step + 1) + 0.1 * step
            one.optimizer.step()
            held, policy = one.sets.shards_of("teacher"), one.sets.shards_of("policy")
            teacher.absorb(held, policy, 0.3, offloaded=one.sets.is_offloaded("teacher"))
        assert other.digest() == plain.digest()
    for theirs, mine in zip(plain.sets.parameters, other.sets.parameters, strict=True):
        expected, state = plain.optimizer.state[theirs], other.optimizer.state[mine]
        assert float(state["step"]) == float(expected["step"]) == 3
        for mean in MEANS:
            assert state[mean].device.type == "cpu"
            assert state[mean].is_pinned() == (device == "cuda")
            assert torch.equal(state[mean], local_shard(expected[mean]).cpu())


def test_updates_and_checkpoints_have_the_same_bits(device: str, folder: str, tmp_path: Path) -> None:
    plain = learner_of(folder, device, deterministic=True)
    other = learner_of(folder, device, *ALL, deterministic=True)
    assert all(one.device.type == "cpu" for name in other.sets.kept for one in other.sets.shards_of(name))
    for update in (1, 2):
        assert other.update(batch(update)).digest == plain.update(batch(update)).digest
    for name, one in (("plain", plain), ("other", other)):
        one.stage()
        one.write(tmp_path / name)
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("plain", "other")]
    assert files[0] == files[1]
    plain.load(tmp_path / "other", incarnation=0)
    other.load(tmp_path / "plain", incarnation=0)
    assert other.update(batch(3)).digest == plain.update(batch(3)).digest


@pytest.mark.parametrize("wire", [torch.float32, torch.bfloat16])
def test_what_is_sent_is_read_on_the_device(device: str, folder: str, wire: torch.dtype) -> None:
    plain, other = learner_of(folder, device), learner_of(folder, device, *ALL)
    for mine, theirs in zip(other.shards("teacher"), plain.shards("teacher"), strict=True):
        assert mine.part(mine.start, 1).device.type == device
        assert torch.equal(mine.checksum(wire), theirs.checksum(wire))
        slots = [torch.empty(one.stop - one.start, dtype=wire, device=device) for one in (mine, theirs)]
        for one, slot in zip((mine, theirs), slots, strict=True):
            one.write(one.start, slot)
        assert torch.equal(*slots)


def test_the_gpu_is_freed_of_what_is_offloaded(device: str, folder: str) -> None:
    """Means 8 bytes, teacher 4 and initial weights 2: 14 of a parameter, at every moment of an update but for what is streamed."""
    if device != "cuda":
        pytest.skip("only a GPU has memory of its own")
    found = []
    for offload in ((), ALL):
        learner = learner_of(folder, device, *offload, digest=False)
        learner.update(batch(1))
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        lasting = torch.cuda.memory_allocated()
        learner.update(batch(2))
        found.append((lasting, torch.cuda.max_memory_allocated()))
        elements = sum(local_shard(parameter).numel() for parameter in learner.sets.parameters)
        del learner
        gc.collect()
        torch.cuda.empty_cache()
    (lasting, peak), (less, lower) = found
    assert lasting - less == pytest.approx(14 * elements, rel=0.02)
    assert peak - lower >= 0.95 * 14 * elements - 2 * 2 * 4 * CHUNK
