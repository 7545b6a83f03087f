"""The learner section of every shipped recipe makes two updates on two ranks; only sizes and device are overridden.

Recipes that differ in model, data or hardware alone have the same section, which then runs once.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from corewarding.dataflow.carriers import TrainBatch
from corewarding.launch.config.load import load_config
from corewarding.launch.config.recipes import recipes
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.run.plans import learner_plan
from corewarding.learner.learner import Learner
from corewarding.learner.settings import LearnerPlan
from tests.unit.learner.conftest import make_samples, write_tiny_model

RANKS = 2
QUESTIONS = 12


def tiny_plan(config: TrainConfig, model: str) -> LearnerPlan:
    sizes = {"device": "cpu", "ranks": RANKS, "gpus_per_rank": 0.0, "micro_batch_tokens": 96, "row_tokens": 48}
    learner = config.learner.model_copy(update=sizes)
    train = config.train.model_copy(update={"updates": 100, "questions_per_update": QUESTIONS})
    return dataclasses.replace(learner_plan(config), model_path=model, learner=learner, train=train)


def section(name: str) -> str:
    """Equal for recipes that give the learner the same work."""
    config = load_config(name)
    return repr((tiny_plan(config, ""), config.reward_rule.trained, sorted(config.reward_rule.needs)))


FIRST = {name: next(other for other in recipes() if section(other) == section(name)) for name in recipes()}
"""The recipe that runs in place of each."""


def learn(name: str, model: str, rank: int) -> dict[str, Any]:
    """What the recipe's learner reports of two updates, and what one rank sees of it."""
    config = load_config(name)
    learner = Learner(tiny_plan(config, model), rank=rank, world_size=RANKS)
    before = [local.clone() for local in learner.sets.shards_of("policy")]
    views = tuple(view for view, _ in config.reward_rule.trained)
    found: dict[str, Any] = {"kept": learner.sets.kept, "updates": []}
    for update in (1, 2):
        samples = make_samples(QUESTIONS, seed=update, views=views, version=update - 1, group_size=4)
        if "token_statistics" in config.reward_rule.needs:
            found["statistics"] = [one.entropy for one in learner.token_statistics(samples)]
        result = learner.update(TrainBatch(incarnation=0, update=update, samples=samples))
        found["updates"].append(result.metrics.scalars)
    after = learner.sets.shards_of("policy")
    found["moved"] = sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) / len(after)
    found["finite"] = all(bool(local.isfinite().all()) for local in after)
    found["teacher"] = learner.version_of("teacher").updates
    found["micro_batches"] = len(learner.pack(samples))
    return found


def _rank(rank: int, folder: str, model: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    found = {name: learn(name, model, rank) for name in dict.fromkeys(FIRST.values())}
    Path(folder, f"rank-{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """[ranks] what each rank saw, by recipe."""
    folder = tmp_path_factory.mktemp("recipes")
    write_tiny_model(folder / "model")
    mp.start_processes(_rank, (str(folder), str(folder / "model")), nprocs=RANKS, start_method="forkserver")
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_learns(name: str, learnt: list[dict[str, Any]]) -> None:
    config, (one, other) = load_config(name), [rank[FIRST[name]] for rank in learnt]
    assert one["micro_batches"] == other["micro_batches"] > 1
    for mine, theirs in zip(one["updates"], other["updates"], strict=True):
        assert mine["loss/total"] == theirs["loss/total"]
        assert mine["loss/num_tokens"] > 0
        assert mine["train/grad_norm"] == theirs["train/grad_norm"] > 0
        assert mine["train/lr"] > 0
    assert one["finite"]
    assert one["moved"] == other["moved"] == 1
    assert ("teacher" in one["kept"]) == config.keeps_teacher
    assert ("initial" in one["kept"]) == (config.kl_reference == "initial")
    assert one["teacher"] == (2 if config.keeps_teacher else 0)
    if "token_statistics" in config.reward_rule.needs:
        assert one["statistics"] == other["statistics"]
        assert len(one["statistics"]) == QUESTIONS * 4
