"""What a rank keeps is exact against a real learner, the rest against tensors that are really made; sizes worked out by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, Qwen3Config

from corewarding.dataflow.carriers import TrainBatch
from corewarding.launch.config.load import make_config
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.plan.fit import MemoryPlan, rank_changes
from corewarding.launch.plan.memory import engine_memory, lasting_parts, rank_memory, total
from corewarding.launch.plan.model import PlannedModel, planned_model, shape_on_meta, sized
from corewarding.launch.plan.trace import Activations, Live, activations
from corewarding.launch.run.plans import learner_plan
from corewarding.learner.learner import Learner
from corewarding.learner.model import local_shard
from corewarding.learner.settings import LearnerPlan, LearnerSettings
from corewarding.weights.model_shape import ModelShape
from tests.toy_models import TOYS, config_of
from tests.unit.learner.conftest import make_samples, write_tiny_model

GB = 10**9
SMALL = ModelShape(
    groups=(((10, 4),), ((4, 4), (4, 1)), ((4, 4), (4, 1)), ((10, 4),), ((4, 1),)),
    layers=2, hidden=4, heads=2, kv_heads=1, head_dim=2, vocab=10, num_active=124, stored_bytes=2,
)  # fmt: skip
"""Embedding and head of 10 x 4, two layers of 20 elements, a norm of 4: 124 elements."""


def on_gpu(**learner: object) -> TrainConfig:
    keys = {"gpus_per_rank": 1, "ranks": 1, "param_dtype": "bfloat16"} | learner
    return make_config(
        {
            "rule": "co_rewarding_ii",
            "learner": keys,
            "rollout": {"gpus_per_actor": 1},
            "engine": {"kind": "vllm", "dtype": "bfloat16"},
        },
        where="test",
    )


def test_the_moments_of_an_update_by_hand() -> None:
    live = Activations(kept=1000, layer=100, head=300, without_gradient=50)
    rank = rank_memory(on_gpu(), SMALL, live)
    assert rank.lasting == {"parameters": 496, "optimizer": 992, "teacher": 496}
    # two groups of at most 40 + 20 elements, and a flat one of 40, in 2 bytes
    gathered = 2 * (60 + 40)
    assert rank.moments["reference pass"] == rank.lasting | {
        "policy set aside": 496,
        "gathered": gathered,
        "activations": 50,
    }
    kept = rank.lasting | {"gradients": 496}
    assert rank.moments["head"] == kept | {"gathered": gathered, "activations": 1000, "head": 300}
    assert rank.moments["layers"] == kept | {"gathered": gathered + 2 * 40 + 4 * 60, "activations": 1100}
    assert rank.moments["optimizer step"] == kept
    assert rank.fullest == "layers"
    assert rank.peak == 5 * 496 + gathered + 80 + 240 + 1100


def test_a_shape_has_the_type_that_the_folder_keeps() -> None:
    for dtype, size in (("bfloat16", 2), ("float32", 4)):
        config = config_of("qwen3")
        config.dtype = dtype
        assert shape_on_meta(config).stored_bytes == shape_on_meta(config).stored_bytes == size


def test_several_ranks_hold_padded_rows() -> None:
    """10 rows on 4 ranks are 3 on the fullest: 2 x 3 x 4 + 2 x (1 x 4 + 1) + 1 = 35."""
    assert SMALL.elements(4) == 35
    assert SMALL.elements(1) == SMALL.num_parameters == 124
    for rows in (1, 7, 8, 9):
        chunks = torch.empty(rows, 3, device="meta").chunk(4)
        shape = dataclasses.replace(SMALL, groups=(((rows, 3),),))
        assert shape.elements(4) == max(chunk.numel() for chunk in chunks)


def test_an_engine_by_hand() -> None:
    """Keys and values of a token: 2 x 2 layers x 1 head x 2 numbers of 2 bytes."""
    config = on_gpu()
    memory = engine_memory(config, "policy", SMALL)
    assert memory is not None
    assert memory.kv_token == 16
    assert memory.parts == {"weights": 248, "sampling": 8 * 128 * 10}
    assert memory.fills
    assert memory.needs == total(memory.parts) + 16 * config.longest_sequence
    embedded = engine_memory(make_config({"rule": "random"}, where="test"), "policy", SMALL)
    assert embedded is not None
    assert embedded.parts["KV cache"] == 32 * 128 * (512 + 1024)
    assert embedded.parts["staged weights"] == embedded.parts["weights"] == 496


@pytest.mark.parametrize("reference", ["teacher", "initial"])
@pytest.mark.parametrize("kl", [{"coef": 0.1}, {"coef": 0.0, "schedules": {"kl.coef": {5: 0.1}}}])
def test_what_a_rank_keeps_is_what_a_learner_keeps(reference: str, kl: dict[str, Any], tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    content = {"model": {"path": str(tmp_path)}, "kl": {"reference": reference, "coef": kl["coef"]}}
    config = make_config(content | {"schedules": kl.get("schedules", {})}, where="test")
    parts = lasting_parts(config, planned_model(config, params=None, model_config_file=None).shape)
    plan = LearnerPlan(
        model_path=str(tmp_path), kl_coef=0.1, kl_reference=config.kl_reference, keep_teacher=True,
        learner=LearnerSettings(micro_batch_tokens=1000, row_tokens=64),
    )  # fmt: skip
    learner = Learner(plan)
    learner.update(TrainBatch(incarnation=0, update=1, samples=make_samples(4)))
    shards = [local_shard(p).detach() for p in learner.model.parameters()]
    assert parts["parameters"] == sum(shard.nbytes for shard in shards)
    means = [local_shard(its[name]) for its in learner.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert parts["optimizer"] == sum(mean.nbytes for mean in means)
    assert parts["teacher"] == sum(shard.nbytes for shard in learner.sets.shards_of("teacher"))
    if reference == "initial":
        assert parts["reference"] == sum(shard.nbytes for shard in learner.sets.shards_of("initial"))
    else:
        assert "reference" not in parts
    learner.accumulate(learner.pack(make_samples(4)))
    gradients = [local_shard(p.grad) for p in learner.model.parameters() if p.grad is not None]
    assert rank_memory(config, shape_on_meta(AutoConfig.from_pretrained(tmp_path)), None).moments["layers"][
        "gradients"
    ] == sum(gradient.nbytes for gradient in gradients)


@pytest.mark.parametrize("targets", [("all-linear",), ("q_proj", "mlp.down_proj")])
def test_a_rank_that_trains_an_adapter_keeps_what_such_a_learner_keeps(
    targets: tuple[str, ...], tmp_path: Path
) -> None:
    write_tiny_model(tmp_path)
    lora = {"rank": 4, "targets": targets}
    content = {"model": {"path": str(tmp_path)}, "kl": {"reference": "initial", "coef": 0.1}, "learner": {"lora": lora}}
    config = make_config(content, where="test")
    parts = lasting_parts(config, planned_model(config, params=None, model_config_file=None).shape)
    learner = Learner(dataclasses.replace(learner_plan(config), keep_teacher=True))
    learner.update(TrainBatch(incarnation=0, update=1, samples=make_samples(4)))
    trained = sum(parameter.numel() for parameter in learner.sets.parameters)
    whole = sum(local_shard(p).nbytes for p in learner.model.parameters())
    means = [local_shard(its[name]) for its in learner.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert parts == {
        "parameters": whole - 4 * trained,
        "adapter": 4 * trained,
        "optimizer": sum(mean.nbytes for mean in means),
        "teacher": 4 * trained,
    }


def test_activations_are_those_of_a_real_forward_pass(tmp_path: Path) -> None:
    """The same rows through the learner's model and its attention on the CPU, every tensor counted."""
    write_tiny_model(tmp_path)
    plan = LearnerPlan(model_path=str(tmp_path), kl_coef=0.0, kl_reference="none", keep_teacher=False)
    learner = Learner(plan)
    (micro,) = learner.pack(make_samples(40, group_size=8))
    with torch.no_grad():
        learner.model(micro)  # FSDP makes its buffers
    live = Live("cpu")
    for tensor in (*map(local_shard, learner.model.parameters()), *learner.model.buffers()):
        live.owns(tensor)
    with live:
        result, _, _ = learner.model(micro, statistics=True)
        kept = live.now
    tokens, predicted = micro.input_ids.numel(), len(micro.target_T)
    config = AutoConfig.from_pretrained(tmp_path)
    planned = activations(config, dtype="float32", tokens=tokens, chunk=2048, checkpointing=False)
    assert planned is not None
    gathered = (
        4 * learner.model.embedding.weight.numel()
    )  # of a tied head, which FSDP gathers again in the backward pass
    assert kept == pytest.approx(planned.kept + 4 * 64 * predicted + gathered, rel=0.05)
    del result


def test_a_layer_of_qwen3_keeps_what_its_equations_say() -> None:
    """Of a token in bfloat16: each norm its input in float32, its result twice in 2 bytes (16 H); queries and keys also normed and
    once more side by side (10 Q, 8 K); values and output (2 V); a log-sum-exp of each head in 4; four tensors of the MLP (8 I)."""
    sizes = {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
    }

    def kept(layers: int) -> int:
        found = activations(
            Qwen3Config(vocab_size=100, num_hidden_layers=layers, **sizes),
            dtype="bfloat16", tokens=512, chunk=64, checkpointing=False,
        )  # fmt: skip
        assert found is not None
        return found.kept

    queries, keys = 4 * 64, 2 * 64
    by_hand = 16 * 256 + 10 * queries + 10 * keys + 4 * 4 + 8 * 768
    assert kept(3) - kept(2) == pytest.approx(512 * by_hand, rel=0.01)


def test_recomputed_layers_keep_their_input_only() -> None:
    config = Qwen3Config(
        vocab_size=100, num_hidden_layers=6, hidden_size=256, intermediate_size=768, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64,
    )  # fmt: skip
    found = activations(config, dtype="bfloat16", tokens=512, chunk=64, checkpointing=True)
    assert found is not None
    inputs, last_norm, cosines, ids = 6 * 2 * 256, 8 * 256 + 4, 2 * 2 * 64, 8
    assert found.kept == 512 * (inputs + last_norm + cosines + ids)
    assert found.layer > 512 * 8 * 768


@pytest.mark.parametrize("name", TOYS)
def test_every_architecture_has_a_shape(name: str) -> None:
    shape = shape_on_meta(config_of(name))
    assert len(shape.groups) >= shape.layers + 2
    assert ("moe" in name or name == "mixtral") == (shape.num_active < shape.num_parameters)


@pytest.mark.parametrize("name", ["gemma3", "smollm3", "granitemoe", "phi3 longrope"])
def test_activations_are_known_unless_a_shape_depends_on_values(name: str) -> None:
    found = activations(config_of(name), dtype="bfloat16", tokens=32, chunk=16, checkpointing=False)
    assert (found is None) == (name == "phi3 longrope")


@pytest.mark.parametrize(
    ("billions", "num"),
    [
        (0.6, 596_049_920),
        (1.7, 1_720_574_976),
        (4, 4_022_468_096),
        (8, 8_190_735_360),
        (14, 14_768_307_200),
        (32, 32_762_123_264),
    ],
)
def test_sizes_are_those_of_the_published_models(billions: float, num: int) -> None:
    _, config = sized(billions * 1e9)
    assert shape_on_meta(config).num_parameters == num


def test_other_sizes_have_more_or_fewer_layers() -> None:
    said, config = sized(20e9)
    assert said.startswith("the width of Qwen3-14B with")
    assert shape_on_meta(config).num_parameters == pytest.approx(20e9, rel=0.02)


def test_32_billion_on_8_ranks_needs_the_memory_of_the_host_or_more_ranks() -> None:
    config = on_gpu(ranks=8, activation_checkpointing=True, micro_batch_tokens=8192)
    (rank, *_) = MemoryPlan(config, _sized(config, "32B")).fits(80 * GB)
    assert rank.what == "learner rank"
    assert not rank.fits
    assert rank.needs > 98 * GB
    assert rank.remedy == {"learner.offload": ["optimizer"]}
    everything = on_gpu(
        ranks=2, activation_checkpointing=True, micro_batch_tokens=8192, offload=("optimizer", "teacher")
    )
    (rank, *_) = MemoryPlan(everything, _sized(everything, "32B")).fits(80 * GB)
    assert rank.remedy is not None
    assert rank.remedy.keys() == {"learner.ranks"}


def test_the_nearest_change_is_a_smaller_micro_batch_where_that_is_enough() -> None:
    config = on_gpu(micro_batch_tokens=32768)
    plan = MemoryPlan(config, _sized(config, "0.6B"))
    (rank, *_) = plan.fits(80 * GB)
    assert rank.remedy == {"learner.micro_batch_tokens": 16384}
    (rank, *_) = plan.fits(141 * GB)
    assert rank.fits
    assert rank.remedy is None


def test_a_shared_gpu_may_give_the_learner_more_of_it() -> None:
    keys = {
        "gpus_per_rank": 0.4,
        "activation_checkpointing": True,
        "micro_batch_tokens": 2048,
        "logprob_chunk_tokens": 256,
    }
    config = make_config(
        {
            "learner": {"param_dtype": "bfloat16"} | keys,
            "rollout": {"gpus_per_actor": 0.25},
            "engine": {"kind": "vllm", "dtype": "bfloat16", "memory_fraction": 0.2},
        },
        where="test",
    )
    assert {"learner.gpus_per_rank": 0.6, "rollout.gpus_per_actor": 0.2, "engine.memory_fraction": 0.15} in list(
        rank_changes(config)
    )
    (rank, *_) = MemoryPlan(config, _sized(config, "1.7B")).fits(80 * GB)
    assert rank.remedy is not None
    assert rank.remedy["learner.gpus_per_rank"] == pytest.approx(rank.needs / (80 * GB), abs=0.08)


def _sized(config: TrainConfig, params: str) -> PlannedModel:
    return planned_model(config, params=params, model_config_file=None)
