"""Baselines on the original wording: the data set's answer, the policy's own vote, and a coin.
`ground_truth` is the only rule that reads the data set's answers, once for each question.
"""

from __future__ import annotations

import hashlib

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup
from corewarding.dataflow.ids import CompletionId
from corewarding.rewards.rules.contract import POLICY_ORIGINAL, RewardRule, RuleContext, judged
from corewarding.rewards.rules.labels import judge_by_label, majority, without_label


def ground_truth(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """Rewards by the data set's answer (GRPO, arXiv 2402.03300); abstains if the question has none.

    Raises ValueError if the context has no gold answers.
    """
    if context.gold is None:
        raise ValueError("reward rule ground_truth needs gold answers, got none: use a data set that has them")
    label = context.gold(rollouts.asked.question_id)
    return [judge_by_label(rollouts, context, trained=POLICY_ORIGINAL, label=label)]


def random_reward(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """Control: a fair coin for each completion, fixed by the run seed and the completion's id."""
    coins = [_coin(context.run_seed, completion.id) for completion in rollouts.group(*POLICY_ORIGINAL)]
    return [without_label(rollouts, trained=POLICY_ORIGINAL, rewards=coins)]


def _coin(run_seed: int, completion: CompletionId) -> int:
    """0 or 1. A digest, because Python's own hash differs between processes."""
    return hashlib.blake2b(f"random reward|{run_seed}|{completion}".encode(), digest_size=1).digest()[0] & 1


RULES = (
    RewardRule(name="ground_truth", score=ground_truth, needs=frozenset({"gold"})),
    # The group's own vote (TTRL, arXiv 2504.16084; SRT, arXiv 2505.21444).
    judged("majority_vote", majority, "policy"),
    RewardRule(name="random", score=random_reward),
)
