"""Baselines that judge the original wording alone: the data set's answer, the policy's own vote, and a coin.
`ground_truth` is the only rule that asks for an answer of the data set, once for each question.
"""

from __future__ import annotations

import hashlib

import numpy as np

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup
from corewarding.dataflow.ids import CompletionId
from corewarding.rewards.rules.contract import RuleContext
from corewarding.rewards.rules.labels import group_id, judge_by_vote, label_rewards


def ground_truth(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """Judged by the data set's answer (GRPO, arXiv 2402.03300); abstains for a question without one.

    Raises ValueError where the context carries no gold answers.
    """
    if context.gold is None:
        raise ValueError("reward rule ground_truth needs gold answers, got none: use a data set that has them")
    label = context.gold(rollouts.asked.question_id)
    completions = rollouts.group("original", "policy")
    label_key = None if label is None else context.key(label)
    return [
        ScoredGroup(
            id=group_id(rollouts, ("original", "policy")),
            completions=completions,
            rewards=label_rewards(completions, label_key, context),
            label=label,
            vote=None,
            abstained=label is None,
        )
    ]


def majority_vote(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """Judged by its own vote (TTRL, arXiv 2504.16084; SRT, arXiv 2505.21444)."""
    return [judge_by_vote(rollouts, context, trained=("original", "policy"), voters=("original", "policy"))]


def random_reward(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """A control: a fair coin for each completion, a function of the run seed and the completion's id alone."""
    completions = rollouts.group("original", "policy")
    return [
        ScoredGroup(
            id=group_id(rollouts, ("original", "policy")),
            completions=completions,
            rewards=np.array([_coin(context.run_seed, completion.id) for completion in completions], np.float32),
            label=None,
            vote=None,
            abstained=False,
        )
    ]


def _coin(run_seed: int, completion: CompletionId) -> int:
    """0 or 1. Python's own hash differs between processes, hence a digest."""
    return hashlib.blake2b(f"random reward|{run_seed}|{completion}".encode(), digest_size=1).digest()[0] & 1
