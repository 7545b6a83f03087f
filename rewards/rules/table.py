"""The reward rules by name: what `rule:` in a configuration chooses from (docs/algorithm.md, "Reward rules").
A rule is data and one function; nothing outside this table knows a rule by its name. A plug-in adds its own with `reward_rule`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup
from corewarding.dataflow.plugins import PluginError, guarded
from corewarding.dataflow.registry import Registry
from corewarding.rewards.rules.baselines import ground_truth, majority_vote, random_reward
from corewarding.rewards.rules.co_rewarding import co_rewarding_i, co_rewarding_ii, co_rewarding_iii
from corewarding.rewards.rules.confidence import entropy, self_certainty
from corewarding.rewards.rules.contract import GroupKind, KLReference, Need, RewardRule, RuleContext, Score

__all__ = ["REWARD_RULES", "GroupKind", "KLReference", "Need", "RewardRule", "RuleContext", "Score", "reward_rule"]

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

REWARD_RULES: Registry[RewardRule] = Registry("rule")
for _rule in _RULES:
    REWARD_RULES.register(_rule.name, _rule)


def reward_rule(
    name: str,
    *,
    groups: Iterable[GroupKind] = (POLICY_ORIGINAL,),
    trained: Iterable[GroupKind] | None = None,
    needs: Iterable[Need] = (),
    kl_reference: KLReference = "initial",
    kl_coef: float = 0.005,
) -> Callable[[Score], Score]:
    """Registers the decorated function as reward rule `name`. For plug-ins; the function comes back unchanged.

    The function takes a question's completions and a RuleContext, and returns one ScoredGroup for each trained group, in order.
    groups: (view, source) pairs sampled for each question. trained: those that are trained; None: all of the policy's.
    needs: "gold" to be given the data set's answers, "token_statistics" for self-certainty and entropy. kl_reference, kl_coef: used
    where the configuration names none.
    """
    asked = tuple(groups)
    rule_trained = tuple(kind for kind in asked if kind[1] == "policy") if trained is None else tuple(trained)
    if not rule_trained or not set(rule_trained) <= set(asked) or any(source != "policy" for _, source in rule_trained):
        raise PluginError(
            f"rule {name!r}: trained must name at least one of its groups, and of the policy's alone; "
            f"groups are {list(asked)}, trained {list(rule_trained)}"
        )

    def register(score: Score) -> Score:
        rule = RewardRule(
            name=name,
            groups=asked,
            trained=rule_trained,
            needs=frozenset(needs),
            kl_reference=kl_reference,
            kl_coef=kl_coef,
            score=_checked(guarded(score, what=f"rule {name!r}"), name, rule_trained),
        )
        REWARD_RULES.register(name, rule, depth=2)
        return score

    return register


def _checked(score: Score, name: str, trained: tuple[GroupKind, ...]) -> Score:
    """The function of a plug-in; what it returns is checked before it is trained on."""

    def call(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
        groups = score(rollouts, context)
        wanted = [rollouts.asked.group(view, source) for view, source in trained]
        if not isinstance(groups, list) or [getattr(group, "id", None) for group in groups] != wanted:
            raise PluginError(
                f"rule {name!r} must return a list with one ScoredGroup for each of {', '.join(map(str, wanted))}"
            )
        if not all(np.isfinite(group.rewards).all() for group in groups):
            raise PluginError(f"rule {name!r}: every reward must be a finite number; {rollouts.asked} has others")
        return groups

    return call
