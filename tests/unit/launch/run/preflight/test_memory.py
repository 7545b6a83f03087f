"""A model that cannot fit is refused with numbers worked out by hand; what could fit is not."""

from pathlib import Path
from typing import Any

import pytest

from corewarding.launch.config.load import load_config, make_config
from corewarding.launch.config.recipes import recipes
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.plan.memory import GB
from corewarding.launch.run.preflight.memory import (
    Memory,
    engine_bytes,
    memory_here,
    offloaded_bytes,
    rank_bytes,
    too_large,
)
from corewarding.launch.run.preflight.needs import bundles
from corewarding.weights.model_files import StoredModel

PARAMETERS = {"0.6B": 0.60, "1.7B": 1.72, "3B": 3.21, "4B": 4.02, "8B": 8.19, "32B": 32.76}
"""Billions of parameters, by the end of a model's name; arithmetic-base is far below 0.01."""


def model(billions: float, *, largest: float = 0) -> StoredModel:
    """In bfloat16. largest: billions of elements of its largest parameter, which counts by itself."""
    num = round(billions * 1e9)
    return StoredModel(num_parameters=num, num_bytes=2 * num, largest=round(largest * 1e9), fingerprint="")


def said(
    config: TrainConfig, billions: float, *, largest: float = 0, main: float = 1e6, gpu: float | None = 80.0
) -> list[str]:
    processes = {kind: len(several) for kind, several in bundles(config).items()}
    memory = Memory(main=round(main * GB), gpu=None if gpu is None else round(gpu * GB))
    return list(too_large(config, model(billions, largest=largest), processes, memory))


def on_gpus(**content: Any) -> TrainConfig:
    keys = {"gpus_per_rank": 1, "ranks": 2} | content.pop("learner", {})
    return make_config(
        {"learner": keys, "rollout": {"gpus_per_actor": 1}, "engine": {"kind": "vllm", "dtype": "bfloat16"}, **content},
        where="test",
    )


def test_a_rank_needs_16_bytes_of_a_parameter_and_more_for_references() -> None:
    """For weight, gradient and two means; half of it on each of two ranks."""
    assert rank_bytes(on_gpus(rule="random", kl={"coef": 0}), model(1)) == 8 * GB
    assert rank_bytes(on_gpus(rule="random", kl={"coef": 0.1, "reference": "initial"}), model(1)) == 9 * GB
    assert rank_bytes(on_gpus(rule="co_rewarding_ii"), model(1)) == 10 * GB
    assert rank_bytes(make_config({"rule": "random", "kl": {"coef": 0}}, where="test"), model(1)) == 16 * GB


def test_the_largest_parameter_is_gathered_with_its_gradient() -> None:
    """On every rank, in the type of the passes."""
    for dtype, element in (("float32", 4), ("bfloat16", 2)):
        config = on_gpus(rule="co_rewarding_ii", learner={"param_dtype": dtype})
        assert rank_bytes(config, model(8, largest=0.5)) - rank_bytes(config, model(8)) == element * GB
        assert rank_bytes(config, model(8, largest=0.5), 4) == 40 * GB + element * GB
        frozen = on_gpus(rule="co_rewarding_ii", learner={"param_dtype": dtype, "lora": {"rank": 8}})
        assert rank_bytes(frozen, model(8, largest=0.5)) - rank_bytes(frozen, model(8)) == element * GB // 2


def test_32_billion_on_8_ranks_of_an_h100_is_refused() -> None:
    """20 bytes of 32.76 billion on 8 ranks, and 8 of the 151,936 x 5,120 of its head."""
    (message,) = said(
        on_gpus(rule="co_rewarding_ii", learner={"ranks": 8}, rollout={"gpus_per_actor": 4}, engine=_SHARDED),
        32.76,
        largest=0.778,
        gpu=81559 * 2**20 / GB,
    )
    assert "a learner rank needs at least 88.1 GB" in message
    assert "learner.gpus_per_rank 1 of a GPU here is 85.5 GB; raise learner.ranks from 8 to at least 9" in message


def test_a_rank_that_trains_an_adapter_keeps_the_frozen_weights_alone() -> None:
    """The model's folder has 2 bytes per parameter."""
    for dtype, element in (("float32", 4), ("bfloat16", 2)):
        lora = on_gpus(rule="co_rewarding_ii", learner={"lora": {"rank": 8}, "param_dtype": dtype})
        assert rank_bytes(lora, model(1)) == element * GB // 2


def test_what_is_offloaded_is_in_the_main_memory() -> None:
    """Half a billion elements a rank. On the GPU: weight, gradient, and 2^25 elements of both means. On the host: 8 + 4 bytes, and 4
    for the policy while the teacher is in its place."""
    config = on_gpus(rule="co_rewarding_ii", learner={"offload": ["optimizer", "teacher"]})
    assert rank_bytes(config, model(1)) == 4 * GB + 8 * 2**25
    assert rank_bytes(config, model(1, largest=0.5)) == 4 * GB + 4 * GB
    assert offloaded_bytes(config, model(1)) == 8 * GB
    assert offloaded_bytes(on_gpus(rule="co_rewarding_ii"), model(1)) == 0
    assert said(config, 1, main=17) == []
    (message,) = said(config, 1, main=15)
    assert (
        "keep at least 16.0 GB (2 x offloaded part of a learner rank of 8.0 GB), and this machine has 15.0 GB"
        in message
    )
    assert "name less in learner.offload, take a smaller model" in message
    (message,) = said(on_gpus(rule="co_rewarding_ii"), 8.19)
    assert "to at least 3, or keep state in the host's memory with learner.offload, or take a smaller model" in message


def test_an_engine_keeps_its_weights_unless_they_are_elsewhere() -> None:
    assert engine_bytes(on_gpus(), "policy", model(1)) == 2 * GB
    assert engine_bytes(on_gpus(engine={"kind": "vllm"}), "policy", model(1)) == 4 * GB
    assert engine_bytes(on_gpus(engine={"kind": "vllm", "quantization": "fp8"}), "policy", model(1)) == GB // 2
    elsewhere = {"kind": "sglang", "url": "http://node3:30000"}
    assert engine_bytes(on_gpus(rule="random", engine=elsewhere), "policy", model(1)) == 0


_SHARDED = {"kind": "vllm", "dtype": "bfloat16", "tensor_parallel": 4}


def test_ranks_that_cannot_hold_their_shards_are_told_how_many_could() -> None:
    config = on_gpus(rule="co_rewarding_ii")
    assert said(config, 6.6) == []
    (message,) = said(config, 8.19)
    assert "8,190.0 million parameters) does not fit: a learner rank needs at least 81.9 GB" in message
    assert "learner.gpus_per_rank 1 of a GPU here is 80.0 GB; raise learner.ranks from 2 to at least 3" in message
    (message,) = said(on_gpus(rule="co_rewarding_ii", learner={"gpus_per_rank": 0.5}), 4.5)
    assert "learner.gpus_per_rank 0.5 of a GPU here is 40.0 GB" in message


def test_an_engine_that_cannot_hold_its_weights() -> None:
    config = on_gpus(rule="random", learner={"ranks": 64})
    assert said(config, 32) == []
    (message,) = said(config, 40)
    assert "the policy's engine keeps 80.0 GB of weights on each GPU, and engine.memory_fraction 0.9" in message
    assert "raise engine.tensor_parallel" in message
    engine = {"kind": "vllm", "dtype": "bfloat16", "tensor_parallel": 2}
    both = on_gpus(rule="random", learner={"ranks": 64}, rollout={"gpus_per_actor": 2}, engine=engine)
    assert said(both, 40) == []


def test_processes_on_the_cpu_share_the_main_memory() -> None:
    """cpu: a rank with 20 bytes of a parameter, two engines with 4 and 4 staged."""
    config = load_config("cpu")
    assert said(config, 1, main=37, gpu=None) == []
    (message,) = said(config, 1, main=35)
    assert (
        "keep at least 36.0 GB (1 x learner rank of 20.0 GB, 1 x policy engine of 8.0 GB, 1 x teacher engine of 8.0 GB)"
        in message
    )
    assert "this machine has 35.0 GB" in message


def test_a_gpu_of_unknown_size_refuses_nothing() -> None:
    assert said(on_gpus(), 1000, gpu=None) == []


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_fits_the_gpus_it_names(name: str) -> None:
    config = load_config(name)
    size = next((size for end, size in PARAMETERS.items() if end in config.model.path), 0.001)
    assert said(config, size, gpu=48 if name == "one_gpu" else 80) == []


def test_a_node_knows_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert memory_here().gpu is None
    assert 10**8 < memory_here().main < 10**15
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 81559\necho 40960\n")
    tool.chmod(0o755)
    assert memory_here().gpu == 40960 * 2**20
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert memory_here().gpu is None
