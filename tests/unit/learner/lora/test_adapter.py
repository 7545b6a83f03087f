"""Only the adapter learns, by the gradient that follows from the merged weight's; off, the model is the base model."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from corewarding.learner.learner import Learner
from corewarding.learner.lora.adapter import LoraError
from corewarding.learner.teacher import alpha
from tests.tiny_models import write_model
from tests.toy_models import write_toy
from tests.unit.learner.conftest import VOCAB, make_samples
from tests.unit.learner.lora.learners import SCALE, adapted, gradients, values, weights, with_merged_weights
from tests.unit.learner.test_learner import batch, plan_of


def test_only_the_adapter_is_trained_and_kept_by_the_optimizer(tiny_model: str) -> None:
    learner = adapted(tiny_model, filled=False)
    base = load_file(Path(tiny_model) / "model.safetensors")
    for update in (1, 2):
        learner.update(batch(update))
    trained = sum(parameter.numel() for parameter in learner.sets.parameters)
    sides = sum(sum(w.shape) for name, w in base.items() if "_proj" in name)
    assert trained == 4 * sides
    assert set(learner.optimizer.state) == set(learner.sets.parameters)
    assert learner.sets.kept == ("teacher",)
    frozen = dict(zip(learner.model.state_dict(), learner.model.state_dict().values(), strict=True))
    for name, weight in frozen.items():
        plain = name.removeprefix("model.").replace(".base_layer.", ".")
        assert plain not in base or torch.equal(weight.full_tensor(), base[plain])


def test_a_policy_begins_as_the_base_model_and_without_its_adapter_stays_it(tiny_model: str) -> None:
    samples = make_samples(4)
    expected = Learner(plan_of(tiny_model)).logprobs(samples, "policy")
    learner = adapted(tiny_model, filled=False, kl_reference="initial")
    assert all(map(np.array_equal, expected, learner.logprobs(samples, "policy")))
    for update in (1, 2, 3):
        learner.update(batch(update))
    assert all(map(np.array_equal, expected, learner.logprobs(samples, "initial")))
    assert not np.allclose(expected[0], learner.logprobs(samples, "policy")[0], atol=1e-3)


@pytest.mark.parametrize("name", ["qwen3 tied", "phi3", "gemma3", "cohere2", "qwen3_moe"])
def test_the_gradient_follows_from_that_of_the_merged_weight(name: str, tmp_path: Path) -> None:
    """With W' = W + s B A: dL/dA = s B^T dL/dW', dL/dB = s dL/dW' A^T."""
    model = write_toy(name, tmp_path / "model")
    learner = adapted(model, kl_reference="none", kl_coef=0.0)
    merged = with_merged_weights(learner, model)
    losses = [one.accumulate(one.pack(batch(1).samples))["loss/total"] for one in (learner, merged)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4, abs=1e-6)
    found, whole, now = gradients(learner), gradients(merged), values(learner)
    assert found.keys() == now.keys()
    for adapter in learner.sets.adapters.values():
        expected = SCALE * now[adapter.b].T @ whole[adapter.weight], SCALE * whole[adapter.weight] @ now[adapter.a].T
        for own, other in zip((found[adapter.a], found[adapter.b]), expected, strict=True):
            assert (own - other).norm() <= 1e-4 * other.norm() + 1e-7


def test_recomputed_activations_change_no_bit(tiny_model: str) -> None:
    found = []
    for checkpointing in (False, True):
        learner = adapted(tiny_model, sizes={"activation_checkpointing": checkpointing})
        learner.accumulate(learner.pack(batch(1).samples))
        found.append(gradients(learner))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_bfloat16_passes_agree_with_float32(tiny_model: str) -> None:
    half, exact = (adapted(tiny_model, sizes={"param_dtype": dtype}) for dtype in ("bfloat16", "float32"))
    samples = make_samples(6, group_size=2)
    for which in ("policy", "teacher"):
        for mine, theirs in zip(half.logprobs(samples, which), exact.logprobs(samples, which), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=0.02)
    a, b = (one.update(batch(1)).metrics.scalars for one in (half, exact))
    assert a["train/grad_norm"] == pytest.approx(b["train/grad_norm"], rel=0.02)
    assert a["policy/logprob"] == pytest.approx(b["policy/logprob"], abs=2e-3)
    assert {parameter.dtype for parameter in half.sets.parameters} == {torch.float32}


def test_the_teacher_is_the_ema_of_the_adapter_by_hand(tiny_model: str) -> None:
    learner = adapted(tiny_model, filled=False)
    base = load_file(Path(tiny_model) / "model.safetensors")
    expected = {name: local.double() for name, local in values(learner).items()}
    for update in (1, 2, 3):
        learner.update(batch(update))
        share = alpha(update, settings=learner.plan.teacher, total_updates=4)
        policy = values(learner)
        expected = {name: (1 - share) * old + share * policy[name].double() for name, old in expected.items()}
    for name, local in values(learner, "teacher").items():
        torch.testing.assert_close(local.double(), expected[name], rtol=1e-5, atol=1e-6)
    sent = weights(learner, "teacher")
    for name, adapter in learner.sets.adapters.items():
        whole = base[name].double() + SCALE * expected[adapter.b] @ expected[adapter.a]
        torch.testing.assert_close(sent[name].double(), whole, rtol=1e-5, atol=1e-6)


def test_frozen_weights_that_are_stored_in_bfloat16_stay_in_it(tiny_model: str, tmp_path: Path) -> None:
    stored = half_of(tiny_model, tmp_path / "half")
    half, exact = (adapted(stored, sizes={"param_dtype": dtype}) for dtype in ("bfloat16", "float32"))
    for learner, frozen in ((half, torch.bfloat16), (exact, torch.float32)):
        trained = set(learner.sets.parameters)
        assert {p.dtype for p in learner.model.parameters() if p not in trained} == {frozen}
        assert {p.dtype for p in trained} == {torch.float32}
    sent = [weights(learner) for learner in (half, exact)]
    assert all(torch.equal(weight.float(), sent[1][name]) for name, weight in sent[0].items())
    a, b = (one.update(batch(1)).metrics.scalars for one in (half, exact))
    assert a["train/grad_norm"] == pytest.approx(b["train/grad_norm"], rel=0.02)


def half_of(model: str, folder: Path) -> str:
    AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).save_pretrained(folder)
    return str(folder)


def _rank(rank: int, folder: str, model: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    learner = adapted(model, rank=rank, world_size=2, kl_reference="initial")
    learner.accumulate(learner.pack(batch(1).samples))
    shards = [(s.name, s.start, s.part(s.start, s.stop - s.start).clone()) for s in learner.shards("teacher")]
    reference = learner.logprobs(batch(1).samples, "initial")
    half = adapted(f"{folder}/half", rank=rank, world_size=2, sizes={"param_dtype": "bfloat16"})
    half.accumulate(half.pack(batch(1).samples))
    found = {"gradients": gradients(learner), "shards": shards, "digest": learner.digest(), "reference": reference}
    found |= {"half": gradients(half)}
    torch.save(found, f"{folder}/rank-{rank}")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_ranks_have_the_numbers_of_one_and_send_the_same_bits(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", kv_heads=1, vocab=VOCAB, spread=0.02)
    half = adapted(half_of(model, tmp_path / "half"), sizes={"param_dtype": "bfloat16"})
    mp.start_processes(_rank, (str(tmp_path), model), nprocs=2, start_method="forkserver")
    ranks = [torch.load(tmp_path / f"rank-{rank}", weights_only=False) for rank in (0, 1)]
    learner = adapted(model, kl_reference="initial")
    learner.accumulate(learner.pack(batch(1).samples))
    for name, own in gradients(learner).items():
        assert (own - ranks[0]["gradients"][name]).norm() < 1e-5 * own.norm()
    half.accumulate(half.pack(batch(1).samples))
    for name, own in gradients(half).items():
        assert (own - ranks[0]["half"][name]).norm() < 0.02 * own.norm()
    assert ranks[0]["digest"] == ranks[1]["digest"] == learner.digest()
    for mine, theirs in zip(learner.logprobs(batch(1).samples, "initial"), ranks[0]["reference"], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    sent = {name: torch.full_like(whole, torch.nan) for name, whole in weights(learner, "teacher").items()}
    for rank in ranks:
        for name, start, local in rank["shards"]:
            sent[name].view(-1)[start : start + len(local)] = local
    assert all(torch.equal(sent[name], whole) for name, whole in weights(learner, "teacher").items())


def test_named_targets_get_an_adapter_and_a_name_that_is_wrong_is_refused(tiny_model: str) -> None:
    learner = adapted(tiny_model, lora={"targets": ("q_proj", "mlp.down_proj")})
    assert {name.split(".", 3)[3] for name in learner.sets.adapters} == {
        "self_attn.q_proj.weight",
        "mlp.down_proj.weight",
    }
    message = (
        f"learner.lora.targets: lm_head matches no linear layer in the decoder layers of model.path {tiny_model}; "
        "its layers have down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    )
    with pytest.raises(LoraError) as error:
        adapted(tiny_model, lora={"targets": ("q_proj", "lm_head")})
    assert str(error.value).startswith(message)
