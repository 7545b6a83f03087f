"""Every reward rule with real parts in one process: engine, rollout actors, replay buffer and learner, on the arithmetic world."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch

from corewarding.rewards.rules.table import REWARD_RULES
from tests.rule_run import QUESTIONS, Run, config_of, trained

MODEL = Path(__file__).resolve().parents[2] / "models" / "arithmetic-base"


@pytest.fixture
async def runs() -> AsyncIterator[list[Run]]:
    made: list[Run] = []
    yield made
    for run in made:
        await run.engine.close()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("rule", REWARD_RULES)
async def test_every_rule_trains_with_fresh_and_with_old_tokens(rule: str, runs: list[Run]) -> None:
    runs.append(Run(config_of(rule, 0)))
    await trained(runs[-1], 1)
    torch.distributed.destroy_process_group()
    runs.append(Run(config_of(rule, 4)))
    batches = await trained(runs[-1], 3)
    views = {sample.id.view for sample in batches[-1].samples}
    assert views == {view for view, _ in REWARD_RULES[rule].trained}
    label_free = REWARD_RULES[rule].needs.isdisjoint({"gold"})
    assert ((await runs[-1].buffer.answers_read())["reward"] == 0) == label_free


@pytest.mark.parametrize("rule", ["co_rewarding_i", "co_rewarding_ii", "co_rewarding_iii", "self_certainty", "entropy"])
async def test_an_adapter_trains_with_old_tokens_and_leaves_the_model_s_weights(rule: str, runs: list[Run]) -> None:
    lora = {"micro_batch_tokens": 512, "row_tokens": 256, "lora": {"rank": 4}}
    runs.append(Run(config_of(rule, 4, learner=lora, kl={"coef": 0.01, "reference": "initial"})))
    learner = runs[-1].learner
    before = [weight.clone() for weight in learner.model.state_dict().values()]
    await trained(runs[-1], 2)
    moved = {
        name
        for old, (name, new) in zip(before, learner.model.state_dict().items(), strict=True)
        if not torch.equal(old.full_tensor(), new.full_tensor())
    }
    assert moved
    assert all(".lora_" in name for name in moved)


async def test_votes_of_many_few_true_labels_and_a_teacher_for_another_rule(runs: list[Run]) -> None:
    config = config_of(
        "evol_rl",
        4,
        rollout={"vote_size": 8},
        label={"from": "teacher_other_view"},
        labels={"budget": 20},
        rule_options={"evol_similarity": "embedding", "evol_embedding_model": str(MODEL)},
        vote={"weights": "confidence", "min_share": 0.2, "on_abstain": "mask"},
    )
    runs.append(Run(config))
    batches = await trained(runs[-1], 2)
    assert {sample.id.view for sample in batches[-1].samples} == {"original", "rephrased"}
    read = (await runs[-1].buffer.answers_read())["reward"]
    asked = [question.id for question in runs[-1].inputs.prepared.questions][: 2 * QUESTIONS]
    assert read == len(set(asked) & set(runs[-1].inputs.known)) > 0
