"""The reward rules by name: what `rule:` in a configuration chooses from (docs/algorithm.md, "Reward rules").
A rule is data and one function; nothing outside this table knows a rule by its name.
"""

from __future__ import annotations

from rewards.baselines import ground_truth, majority_vote, random_reward
from rewards.co_rewarding import co_rewarding_i, co_rewarding_ii, co_rewarding_iii
from rewards.confidence import entropy, self_certainty
from rewards.contract import GroupKind, KLReference, Need, RewardRule, RuleContext

__all__ = ["REWARD_RULES", "GroupKind", "KLReference", "Need", "RewardRule", "RuleContext"]

POLICY_ORIGINAL: GroupKind = ("original", "policy")
POLICY_REPHRASED: GroupKind = ("rephrased", "policy")
TEACHER_ORIGINAL: GroupKind = ("original", "teacher")
TEACHER_REPHRASED: GroupKind = ("rephrased", "teacher")

_RULES = (
    RewardRule(
        name="ground_truth",
        groups=(POLICY_ORIGINAL,),
        trained=(POLICY_ORIGINAL,),
        needs=frozenset({"gold"}),
        kl_reference="initial",
        kl_coef=0.005,
        score=ground_truth,
    ),
    RewardRule(
        name="majority_vote",
        groups=(POLICY_ORIGINAL,),
        trained=(POLICY_ORIGINAL,),
        needs=frozenset(),
        kl_reference="initial",
        kl_coef=0.005,
        score=majority_vote,
    ),
    RewardRule(
        name="self_certainty",
        groups=(POLICY_ORIGINAL,),
        trained=(POLICY_ORIGINAL,),
        needs=frozenset({"token_statistics"}),
        kl_reference="initial",
        kl_coef=0.005,
        score=self_certainty,
    ),
    RewardRule(
        name="entropy",
        groups=(POLICY_ORIGINAL,),
        trained=(POLICY_ORIGINAL,),
        needs=frozenset({"token_statistics"}),
        kl_reference="initial",
        kl_coef=0.005,
        score=entropy,
    ),
    RewardRule(
        name="random",
        groups=(POLICY_ORIGINAL,),
        trained=(POLICY_ORIGINAL,),
        needs=frozenset(),
        kl_reference="initial",
        kl_coef=0.005,
        score=random_reward,
    ),
    RewardRule(
        name="co_rewarding_i",
        groups=(POLICY_ORIGINAL, POLICY_REPHRASED),
        trained=(POLICY_ORIGINAL, POLICY_REPHRASED),
        needs=frozenset(),
        kl_reference="initial",
        kl_coef=0.005,
        score=co_rewarding_i,
    ),
    RewardRule(
        name="co_rewarding_ii",
        groups=(POLICY_ORIGINAL, TEACHER_ORIGINAL),
        trained=(POLICY_ORIGINAL,),
        needs=frozenset(),
        kl_reference="teacher",
        kl_coef=0.001,
        score=co_rewarding_ii,
    ),
    RewardRule(
        name="co_rewarding_iii",
        groups=(POLICY_ORIGINAL, POLICY_REPHRASED, TEACHER_ORIGINAL, TEACHER_REPHRASED),
        trained=(POLICY_ORIGINAL, POLICY_REPHRASED),
        needs=frozenset(),
        kl_reference="teacher",
        kl_coef=0.001,
        score=co_rewarding_iii,
    ),
)

REWARD_RULES: dict[str, RewardRule] = {rule.name: rule for rule in _RULES}
