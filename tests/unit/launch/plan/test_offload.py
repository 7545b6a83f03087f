"""The plan of a run with learner.offload, worked out by hand, and the key itself."""

from __future__ import annotations

import dataclasses

import pytest

from corewarding.dataflow.errors import UserError
from corewarding.launch.config.command_line import ConfigArguments, parse_config
from corewarding.launch.config.load import make_config
from corewarding.launch.plan.fit import rank_changes
from corewarding.launch.plan.memory import Parts, lasting_parts, rank_memory
from corewarding.launch.plan.show import host_words, remedy_words
from corewarding.launch.plan.speed import offload_s
from corewarding.weights.model_shape import ModelShape
from tests.unit.launch.plan.test_memory import SMALL, on_gpu

EVERYTHING: Parts = {"parameters": 496, "optimizer": 992, "teacher": 496}
"""Of SMALL's 124 elements."""


def test_what_is_offloaded_leaves_the_gpu_and_what_is_streamed_comes() -> None:
    rank = rank_memory(on_gpu(offload=("optimizer", "teacher")), SMALL, None)
    assert rank.lasting == {"parameters": 496}
    assert rank.host == {"optimizer": 992, "teacher": 496, "policy set aside": 496}
    gathered = 2 * (60 + 40)
    assert rank.moments["reference pass"] == {"parameters": 496, "gathered": gathered}
    assert rank.moments["head"] == {"parameters": 496, "gradients": 496, "gathered": gathered}
    assert rank.moments["optimizer step"] == {"parameters": 496, "gradients": 496, "streamed": 992}


def test_each_part_by_itself() -> None:
    optimizer = rank_memory(on_gpu(offload=("optimizer",)), SMALL, None)
    assert optimizer.host == {"optimizer": 992}
    assert optimizer.moments["reference pass"]["policy set aside"] == 496
    teacher = rank_memory(on_gpu(offload=("teacher",)), SMALL, None)
    assert teacher.host == {"teacher": 496, "policy set aside": 496}
    assert teacher.moments["optimizer step"] == {"parameters": 496, "optimizer": 992, "gradients": 496}
    nothing = rank_memory(on_gpu(offload=("reference",)), SMALL, None)  # of a run without initial weights
    assert (nothing.lasting, nothing.host) == (EVERYTHING, {})


def test_initial_weights_have_the_size_of_the_folder() -> None:
    learner = {"gpus_per_rank": 1, "offload": ["reference"]}
    content = {"rule": "random", "learner": learner, "kl": {"reference": "initial", "coef": 0.1}}
    rank = rank_memory(make_config(content, where="test"), SMALL, None)
    assert rank.host == {"reference": 248, "policy set aside": 496}
    assert rank.lasting == {"parameters": 496, "optimizer": 992}


def test_at_most_two_chunks_of_both_means_are_streamed() -> None:
    large = dataclasses.replace(SMALL, groups=(((2**25, 2),), ((1, 1),)))
    rank = rank_memory(on_gpu(offload=("optimizer",)), large, None)
    assert rank.host["optimizer"] == 8 * (2**26 + 1)
    assert rank.moments["optimizer step"]["streamed"] == 2 * 2 * 4 * 2**24


def test_on_the_cpu_nothing_leaves() -> None:
    config = on_gpu(gpus_per_rank=0, offload=("optimizer", "teacher"))
    assert lasting_parts(config, SMALL) == EVERYTHING
    rank = rank_memory(config, SMALL, None)
    assert rank.host == {}
    assert rank.moments["reference pass"]["policy set aside"] == 496
    assert "streamed" not in rank.moments["optimizer step"]
    assert offload_s(config, SMALL) == 0


def test_the_memory_of_the_host_is_said() -> None:
    rank = rank_memory(on_gpu(offload=("optimizer", "teacher")), _of(10**9), None)
    assert host_words(rank) == (
        "learner.offload: each learner rank keeps 16.0 GB in the memory of its host (optimizer 8.0 GB, teacher 4.0 GB, "
        "policy set aside 4.0 GB)"
    )


def test_seconds_of_an_update_by_hand() -> None:
    """A billion elements at 20 GB/s: means 8 bytes; teacher 4, 4 for its digest, and in the reference pass 4 out, 4 in, 4 back."""
    assert offload_s(on_gpu(offload=("optimizer",)), _of(10**9)) == pytest.approx(0.4)
    assert offload_s(on_gpu(offload=("teacher",)), _of(10**9)) == pytest.approx(0.2 + 0.2 + 0.6)
    assert offload_s(on_gpu(), _of(10**9)) == 0


def _of(elements: int) -> ModelShape:
    return dataclasses.replace(SMALL, groups=(((elements // 2, 1),), ((elements // 2, 1),)))


def test_more_and_more_is_proposed_before_more_ranks() -> None:
    changes = list(rank_changes(on_gpu()))
    first, second = {"learner.offload": ["optimizer"]}, {"learner.offload": ["optimizer", "teacher"]}
    assert changes.index(first) < changes.index(second) < changes.index({"learner.ranks": 2})
    assert remedy_words(second).endswith("fit: learner.offload=[optimizer,teacher]")
    further = list(rank_changes(on_gpu(offload=("teacher",))))
    assert {"learner.offload": ["teacher", "optimizer"]} in further
    assert first not in further


def test_the_key_on_the_command_line_and_what_it_refuses() -> None:
    for words in (["learner.offload=[optimizer,teacher]"], ["--learner.offload", "optimizer", "teacher"]):
        arguments = parse_config(ConfigArguments, ["cpu", *words], command="train")
        assert arguments.settings.learner.offload == ("optimizer", "teacher")
    with pytest.raises(UserError, match=r"learner\.offload: must name each part once, got \['teacher', 'teacher'\]"):
        make_config({"learner": {"offload": ["teacher", "teacher"]}}, where="test")
    with pytest.raises(UserError, match=r"learner\.offload\.0: .*'optimizer', 'teacher' or 'reference'"):
        make_config({"learner": {"offload": ["policy"]}}, where="test")
