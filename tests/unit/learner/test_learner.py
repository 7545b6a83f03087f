"""One rank equals two; a bad number changes no weight; the teacher by hand; a checkpoint continues bit for bit."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from corewarding.dataflow.carriers import TrainBatch
from corewarding.learner.learner import Learner, LearnerError
from corewarding.learner.schedule import learning_rate
from corewarding.learner.settings import (
    CorrectionSettings,
    LearnerPlan,
    LearnerSettings,
    LossSettings,
    TeacherSettings,
    TrainSettings,
)
from corewarding.learner.teacher import alpha
from tests.tiny_models import write_model
from tests.toy_models import write_toy
from tests.unit.learner.conftest import VOCAB, make_samples, write_tokenizer


def plan_of(model: str, *, micro_batch_tokens: int = 10_000, **changes: Any) -> LearnerPlan:
    values: dict[str, Any] = {
        "model_path": model,
        "kl_coef": 0.01,
        "kl_reference": "teacher",
        "keep_teacher": True,
        "train": TrainSettings(lr=1e-2, updates=4, warmup_frac=0.0),
        "learner": LearnerSettings(micro_batch_tokens=micro_batch_tokens, row_tokens=24),
        "teacher": TeacherSettings(alpha_start=0.3, alpha_end=0.1),
    }
    return LearnerPlan(**(values | changes))


def save(learner: Learner, folder: Path) -> None:
    learner.stage()
    learner.write(folder)


def batch(update: int, num: int = 10) -> TrainBatch:
    samples = make_samples(num, seed=update, views=("original", "rephrased"), version=update - 1)
    return TrainBatch(incarnation=0, update=update, samples=samples)


def gradients(learner: Learner) -> list[Tensor]:
    return [p.grad.full_tensor().clone() for p in learner.model.parameters()]


def test_micro_batches_do_not_change_the_gradient(tiny_model: str) -> None:
    results = []
    for tokens in (10_000, 30):
        learner = Learner(plan_of(tiny_model, micro_batch_tokens=tokens))
        micros = learner.pack(batch(1).samples)
        results.append((len(micros), learner.accumulate(micros), gradients(learner)))
    (one, first, a), (many, second, b) = results
    assert one == 1
    assert many > 3
    assert first["loss/total"] == pytest.approx(second["loss/total"], rel=1e-4)
    norm = torch.stack([g.norm() for g in a]).norm()
    assert torch.stack([(x - y).norm() for x, y in zip(a, b, strict=True)]).norm() < 1e-5 * norm


def _rank(rank: int, folder: str, model: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    learner = Learner(plan_of(model), rank=rank, world_size=2)
    learner.accumulate(learner.pack(batch(1).samples))
    full = gradients(learner)
    samples = batch(1).samples
    found = [learner.logprobs(samples, "policy"), learner.token_statistics(samples)]
    share = sum(local.numel() for local in learner.sets.shards_of("policy")) / sum(
        p.numel() for p in learner.model.parameters()
    )
    if rank == 0:
        torch.save({"gradients": full, "share": share, "found": found}, f"{folder}/result")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("tied", [True, False])
def test_two_ranks_have_the_numbers_of_one_and_half_the_shards(tmp_path: Path, tied: bool) -> None:
    tiny_model = write_model(tmp_path / "model", tied=tied, vocab=VOCAB, spread=0.02)
    mp.start_processes(_rank, (str(tmp_path), tiny_model), nprocs=2, start_method="forkserver")
    two = torch.load(tmp_path / "result", weights_only=False)
    learner = Learner(plan_of(tiny_model))
    learner.accumulate(learner.pack(batch(1).samples))
    one = gradients(learner)
    norm = torch.stack([g.norm() for g in one]).norm()
    assert torch.stack([(x - y).norm() for x, y in zip(one, two["gradients"], strict=True)]).norm() < 1e-5 * norm
    assert two["share"] == pytest.approx(0.5, abs=0.02)
    logprobs, statistics = two["found"]
    for mine, theirs in zip(logprobs, learner.logprobs(batch(1).samples, "policy"), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    for own, other in zip(statistics, learner.token_statistics(batch(1).samples), strict=True):
        assert own.id == other.id
        assert (own.entropy, own.self_certainty) == pytest.approx((other.entropy, other.self_certainty), abs=1e-5)


def test_the_teacher_is_the_ema_by_hand(tiny_model: str) -> None:
    learner = Learner(plan_of(tiny_model))
    expected = [local.double().clone() for local in learner.sets.shards_of("policy")]
    for update in (1, 2, 3):
        learner.update(batch(update))
        share = alpha(update, settings=learner.plan.teacher, total_updates=4)
        expected = [
            (1 - share) * t + share * p.double()
            for t, p in zip(expected, learner.sets.shards_of("policy"), strict=True)
        ]
    for mine, theirs in zip(learner.sets.shards_of("teacher"), expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=1e-6)
    assert learner.version_of("teacher").updates == 3


def test_alpha_falls_from_start_to_end() -> None:
    settings = TeacherSettings()
    assert alpha(5, settings=settings, total_updates=10) == pytest.approx((0.01 + 1e-4) / 2)
    assert alpha(10, settings=settings, total_updates=10) == pytest.approx(1e-4)


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    settings = TrainSettings(lr=1.0, updates=10, warmup_frac=0.2)
    assert [learning_rate(k, settings) for k in (1, 2, 3, 7)] == pytest.approx([0.5, 1.0, 1.0, 0.5])


def test_a_schedule_changes_the_loss_and_the_rate_of_later_updates_only(tiny_model: str) -> None:
    bypass = CorrectionSettings(mode="bypass")  # clips at the ratio to the sampler
    slow = TrainSettings(lr=1e-3, updates=4, warmup_frac=0.0)
    first = plan_of(tiny_model, correction=bypass)
    later = plan_of(tiny_model, correction=bypass, train=slow, loss=LossSettings(eps_high=1e-3))
    scheduled, plain = Learner(dataclasses.replace(first, later=((2, later),))), Learner(first)
    for update in (1, 2, 3):
        one, other = (learner.update(batch(update)).metrics.scalars for learner in (scheduled, plain))
        assert one["train/lr"] == learning_rate(update, slow if update == 3 else first.train)
        assert (one["loss/total"] == other["loss/total"]) == (update < 3)
    assert one["loss/clip_high_frac"] > other["loss/clip_high_frac"]


@pytest.mark.parametrize("reference", ["initial", "teacher"])
def test_a_scheduled_kl_term_has_its_reference_from_the_start(tiny_model: str, tmp_path: Path, reference: Any) -> None:
    """The first updates have no KL term; those after update 2 pull to weights from before them, also after a resume."""
    off, on = (plan_of(tiny_model, kl_coef=coef, kl_reference=reference) for coef in (0.0, 0.5))
    plan = dataclasses.replace(off, later=((2, on),))
    straight, always, never = Learner(plan), Learner(on), Learner(off)
    assert ("initial" in never.sets.kept) is False
    for update in (1, 2):
        found = straight.update(batch(update)).metrics.scalars
        assert found["kl/mean"] == 0.0
        assert found["loss/total"] == never.update(batch(update)).metrics.scalars["loss/total"]
    save(straight, tmp_path / "saved")
    resumed = Learner(plan)
    resumed.load(tmp_path / "saved", incarnation=0)
    always.load(tmp_path / "saved", incarnation=0)
    third, again, expected = (one.update(batch(3)).metrics.scalars for one in (straight, resumed, always))
    assert third["kl/mean"] > 0
    for key in ("kl/mean", "loss/total", "train/grad_norm"):
        assert third[key] == again[key] == expected[key]
    assert straight.digest() == resumed.digest() == always.digest()


def test_scheduled_decay_clipping_and_teacher_are_those_of_their_update(tiny_model: str) -> None:
    train = TrainSettings(lr=1e-2, updates=4, warmup_frac=0.0, weight_decay=0.0)
    first = plan_of(tiny_model, train=train)
    changed = train.model_copy(update={"weight_decay": 0.5, "grad_clip": 1e-3})
    held = TeacherSettings(alpha_start=0.0, alpha_end=0.0)
    later = plan_of(tiny_model, train=changed, teacher=held)
    scheduled, plain = Learner(dataclasses.replace(first, later=((1, later),))), Learner(first)
    for learner in (scheduled, plain):
        learner.update(batch(1))
    assert scheduled.digest() == plain.digest()
    teacher = [shard.clone() for shard in scheduled.sets.shards_of("teacher")]
    told = scheduled.update(batch(2)).metrics.scalars
    assert told["teacher/alpha"] == 0.0
    assert all(torch.equal(a, b) for a, b in zip(teacher, scheduled.sets.shards_of("teacher"), strict=True))
    assert [group["weight_decay"] for group in scheduled.optimizer.param_groups] == [0.5]
    plain.update(batch(2))
    assert scheduled.digest() != plain.digest()


def test_a_nan_stops_before_the_weights_move(tiny_model: str) -> None:
    learner = Learner(plan_of(tiny_model, kl_coef=0.0, kl_reference="none"))
    with torch.no_grad():
        learner.sets.shards_of("policy")[-1].fill_(float("nan"))
    before = [local.clone() for local in learner.sets.shards_of("policy")]
    with pytest.raises(LearnerError, match="loss/total is nan"):
        learner.update(batch(1))
    assert all(
        torch.equal(a.nan_to_num(), b.nan_to_num())
        for a, b in zip(before, learner.sets.shards_of("policy"), strict=True)
    )
    assert learner.version.updates == 0


def test_a_batch_for_other_weights_is_refused(tiny_model: str) -> None:
    with pytest.raises(LearnerError, match="batch of update 2"):
        Learner(plan_of(tiny_model)).update(batch(2))


def test_an_update_without_samples_counts_but_does_not_step(tiny_model: str) -> None:
    learner = Learner(plan_of(tiny_model))
    before = [local.clone() for local in learner.sets.shards_of("policy")]
    result = learner.update(TrainBatch(incarnation=0, update=1, samples=()))
    assert result.skipped
    assert learner.version.updates == 1
    assert all(torch.equal(a, b) for a, b in zip(before, learner.sets.shards_of("policy"), strict=True))


def test_a_checkpoint_continues_bit_for_bit_and_exports(tiny_model: str, tmp_path: Path) -> None:
    one = Learner(plan_of(tiny_model))
    one.update(batch(1))
    save(one, tmp_path / "saved")
    two = Learner(plan_of(tiny_model))
    two.load(tmp_path / "saved", incarnation=1)
    assert str(two.version) == "1.1"
    for learner in (one, two):
        learner.update(batch(2))
    assert all(
        torch.equal(a, b) for a, b in zip(one.sets.shards_of("policy"), two.sets.shards_of("policy"), strict=True)
    )
    assert all(
        torch.equal(a, b) for a, b in zip(one.sets.shards_of("teacher"), two.sets.shards_of("teacher"), strict=True)
    )
    save(one, tmp_path / "again")
    one.export(tmp_path / "again", tmp_path / "teacher", "teacher")
    loaded = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "teacher").named_parameters())
    for name, values in zip(one.sets.names, one.sets.shards_of("teacher"), strict=True):
        np.testing.assert_array_equal(loaded[name].detach(), values)


def test_a_checkpoint_continues_over_another_number_of_updates(tiny_model: str, tmp_path: Path) -> None:
    one = Learner(plan_of(tiny_model))
    one.update(batch(1))
    save(one, tmp_path / "saved")
    longer = plan_of(tiny_model, train=TrainSettings(lr=1e-2, updates=9, warmup_frac=0.0))
    other = Learner(longer)
    other.load(tmp_path / "saved", incarnation=1)
    assert str(other.version) == "1.1"
    assert all(
        torch.equal(a, b) for a, b in zip(one.sets.shards_of("policy"), other.sets.shards_of("policy"), strict=True)
    )
    scalars = other.update(batch(2)).metrics.scalars
    assert scalars["train/lr"] == pytest.approx(learning_rate(2, longer.train))
    assert scalars["train/lr"] != pytest.approx(learning_rate(2, plan_of(tiny_model).train))
    assert scalars["teacher/alpha"] == pytest.approx(alpha(2, settings=longer.teacher, total_updates=9))


def test_experts_leave_under_the_names_of_the_checkpoint(tmp_path: Path) -> None:
    base = write_toy("qwen3_moe", tmp_path / "base")
    write_tokenizer(tmp_path / "base")
    learner = Learner(plan_of(base))
    stored = load_file(Path(base) / "model.safetensors")
    sent = {shard.name: shard.local.view(shard.shape) for shard in learner.shards("policy")}
    save(learner, tmp_path / "saved")
    learner.export(tmp_path / "saved", tmp_path / "exported", "teacher")
    exported = load_file(tmp_path / "exported" / "model.safetensors")
    for found in (sent, exported):
        assert found.keys() == stored.keys()
        assert all(torch.equal(found[name], values) for name, values in stored.items())


def test_the_digest_tells_any_bit_of_policy_and_teacher_and_only_them(tiny_model: str) -> None:
    learner = Learner(plan_of(tiny_model, digest=True))
    result = learner.update(batch(1))
    assert result.digest == learner.digest()
    seen = {result.digest}
    for name in ("policy", "teacher"):
        shard = learner.sets.shards_of(name)[3].view(torch.int32).reshape(-1)
        shard[5] ^= 1
        seen.add(learner.digest())
        shard[5] ^= 1
    assert len(seen) == 3
    assert learner.digest() == result.digest
    assert Learner(plan_of(tiny_model)).update(batch(1)).digest == ""  # not asked for


def test_a_learner_that_repeats_exactly_makes_the_same_updates(tiny_model: str) -> None:
    settings = LearnerSettings(micro_batch_tokens=30, row_tokens=24, deterministic=True)
    try:
        digests = []
        for _ in range(2):
            learner = Learner(plan_of(tiny_model, digest=True, learner=settings))
            assert torch.are_deterministic_algorithms_enabled()
            digests.append([learner.update(batch(update)).digest for update in (1, 2)])
    finally:
        torch.use_deterministic_algorithms(False)
    assert digests[0] == digests[1]
