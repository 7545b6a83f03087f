"""Every reward rule trains on what a real engine sampled: answers, log-probabilities and versions serve all rules alike."""

from __future__ import annotations

import numpy as np
import torch

from corewarding.actors.engines import ENGINES, make_engine
from corewarding.launch.run.inputs import read_inputs
from corewarding.rewards.rules.table import REWARD_RULES
from tests.engines.world import SGLANG_PYTHON
from tests.rule_run import Run, config_of, context_of, trained


async def test_every_rule_trains_on_old_tokens_of_this_engine(kind: str) -> None:
    """One engine for all rules, since starting one takes most of a minute; it keeps the initial weights."""
    python = {"python": SGLANG_PYTHON} if ENGINES[kind].python_of == "server" else {}
    config = config_of("co_rewarding_ii", 4, engine={"kind": kind} | python)
    engine = make_engine(context_of(config, read_inputs(config)))
    try:
        for rule in REWARD_RULES:
            batches = await trained(Run(config_of(rule, 4), engine), 2)
            torch.distributed.destroy_process_group()
            assert {sample.id.view for sample in batches[-1].samples} == {
                view for view, _ in REWARD_RULES[rule].trained
            }
            samples = [sample for batch in batches for sample in batch.samples]
            assert {version for sample in samples for version in sample.token_versions.tolist()} == {0}, rule
            assert all(np.isfinite(sample.behavior_logprobs).all() for sample in samples), rule
    finally:
        await engine.close()
