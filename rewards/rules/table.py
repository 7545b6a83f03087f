"""The reward rules by name: what `rule:` in a configuration chooses from (docs/algorithm.md, "Reward rules").
A rule is data and one function; nothing outside this table knows a rule by its name.
"""

from __future__ import annotations

from corewarding.rewards.rules.baselines import ground_truth, majority_vote, random_reward
from corewarding.rewards.rules.co_rewarding import co_rewarding_i, co_rewarding_ii, co_rewarding_iii
from corewarding.rewards.rules.confidence import entropy, self_certainty
from corewarding.rewards.rules.contract import GroupKind, KLReference, Need, RewardRule, RuleContext, Score

__all__ = ["REWARD_RULES", "GroupKind", "KLReference", "Need", "RewardRule", "RuleContext", "Score"]

POLICY_ORIGINAL: GroupKind = ("original", "policy")
POLICY_REPHRASED: GroupKind = ("rephrased", "policy")
TEACHER_ORIGINAL: GroupKind = ("original", "teacher")
TEACHER_REPHRASED: GroupKind = ("rephrased", "teacher")


def _baseline(name: str, score: Score, *needs: Need) -> RewardRule:
    return RewardRule(
        name=name,
        groups=(POLICY_ORIGINAL,),
        trained=(POLICY_ORIGINAL,),
        needs=frozenset(needs),
        kl_reference="initial",
        kl_coef=0.005,
        score=score,
    )


_RULES = (
    _baseline("ground_truth", ground_truth, "gold"),
    _baseline("majority_vote", majority_vote),
    _baseline("self_certainty", self_certainty, "token_statistics"),
    _baseline("entropy", entropy, "token_statistics"),
    _baseline("random", random_reward),
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
