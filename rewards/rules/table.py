"""The reward rules by name, as `rule:` in a configuration selects them (docs/algorithm.md, "Reward rules").

Each family's file ends with its rows; no other code names a rule. A plug-in adds its own with `reward_rule`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import get_args

import numpy as np

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup
from corewarding.dataflow.plugins import PluginError, guarded
from corewarding.dataflow.registry import Registry
from corewarding.rewards.rules import (
    baselines,
    co_rewarding,
    confidence,
    empo,
    evol_rl,
    restrain,
    self_harmony,
    trajectory,
)
from corewarding.rewards.rules.contract import (
    POLICY_ORIGINAL,
    GroupKind,
    KLReference,
    Need,
    RewardRule,
    RuleContext,
    Score,
)

__all__ = ["REWARD_RULES", "GroupKind", "KLReference", "Need", "RewardRule", "RuleContext", "Score", "reward_rule"]

REWARD_RULES: Registry[RewardRule] = Registry("rule")
_FAMILIES = (baselines, confidence, trajectory, co_rewarding, self_harmony, empo, evol_rl, restrain)
for _rule in (rule for family in _FAMILIES for rule in family.RULES):
    REWARD_RULES.register(_rule.name, _rule)


def reward_rule(
    name: str,
    *,
    groups: Iterable[GroupKind] = (POLICY_ORIGINAL,),
    trained: Iterable[GroupKind] | None = None,
    voters: Iterable[GroupKind] = (),
    needs: Iterable[Need] = (),
    kl_reference: KLReference = "initial",
    kl_coef: float = 0.005,
) -> Callable[[Score], Score]:
    """Registers the decorated function as reward rule `name`. For plug-ins; the function comes back unchanged.

    The function takes a question's completions and a RuleContext, and returns one ScoredGroup for each trained group, in order.
    groups: (view, source) pairs sampled for each question. trained: those that are trained; None: all of the policy's.
    voters: groups that elect labels; rollout.vote_size is their size. needs: "gold" to be given the data set's answers,
    "token_statistics" for self-certainty and entropy, "sampled_logprobs" for Completion.behavior_logprobs, "initial_answers" of the
    model before training, "similarity" of completions. kl_reference, kl_coef: used where the configuration names none.
    """
    asked, needs = tuple(groups), tuple(needs)
    rule_trained = tuple(kind for kind in asked if kind[1] == "policy") if trained is None else tuple(trained)
    if not rule_trained or not set(rule_trained) <= set(asked) or any(source != "policy" for _, source in rule_trained):
        raise PluginError(
            f"rule {name!r}: trained must name at least one of its groups, and of the policy's alone; "
            f"groups are {list(asked)}, trained {list(rule_trained)}"
        )

    unknown = sorted(set(needs) - set(get_args(Need)))
    if unknown:
        raise PluginError(f"rule {name!r}: needs {unknown[0]!r} does not exist; there are {', '.join(get_args(Need))}")

    def register(score: Score) -> Score:
        rule = RewardRule(
            name=name,
            groups=asked,
            trained=rule_trained,
            voters=tuple(voters),
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
        sizes = [len(rollouts.group(*kind)[: context.train_size]) for kind in trained]
        if [len(group.completions) for group in groups] != sizes:
            raise PluginError(f"rule {name!r} must score the completions of cw.trained_completions, and no others")
        if not all(np.isfinite(group.rewards).all() for group in groups):
            raise PluginError(f"rule {name!r}: every reward must be a finite number; {rollouts.asked} has others")
        return groups

    return call
