"""The eight reward rules by name. What a rule asks for, trains and needs is data; how it scores is one function.

Only `ground_truth` is ever handed answers; every other rule's context has none, so it cannot read a label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dataflow.types import QuestionRollouts, ScoredGroup, Source, View
from rewards import baselines, co_rewarding
from rewards.context import RuleContext

Need = Literal["gold", "token_statistics"]
Asked = tuple[View, Source]

ORIGINAL: Asked = ("original", "policy")
REPHRASED: Asked = ("rephrased", "policy")
TEACHER_ORIGINAL: Asked = ("original", "teacher")
TEACHER_REPHRASED: Asked = ("rephrased", "teacher")


@dataclass(frozen=True, kw_only=True)
class RewardRule:
    """`groups` are sampled for every question, `trained` of them enter the loss; kl_* are the paper's defaults."""

    name: str
    groups: tuple[Asked, ...]
    trained: tuple[Asked, ...]
    score: Callable[[QuestionRollouts, RuleContext], list[ScoredGroup]]
    needs: frozenset[Need] = frozenset()
    kl_reference: Literal["initial", "teacher", "none"] = "initial"
    kl_coef: float = 0.005

    @property
    def needs_rephrased(self) -> bool:
        return any(view == "rephrased" for view, _ in self.groups)

    @property
    def needs_teacher(self) -> bool:
        return any(source == "teacher" for _, source in self.groups)


def _baseline(
    name: str, score: Callable[[QuestionRollouts, RuleContext], list[ScoredGroup]], *needs: Need
) -> RewardRule:
    return RewardRule(name=name, groups=(ORIGINAL,), trained=(ORIGINAL,), score=score, needs=frozenset(needs))


_RULES = (
    _baseline("ground_truth", baselines.ground_truth, "gold"),
    _baseline("majority_vote", baselines.majority_vote),
    _baseline("self_certainty", baselines.self_certainty, "token_statistics"),
    _baseline("entropy", baselines.entropy, "token_statistics"),
    _baseline("random", baselines.random),
    RewardRule(
        name="co_rewarding_i",
        groups=(ORIGINAL, REPHRASED),
        trained=(ORIGINAL, REPHRASED),
        score=co_rewarding.co_rewarding_i,
    ),
    RewardRule(
        name="co_rewarding_ii",
        groups=(ORIGINAL, TEACHER_ORIGINAL),
        trained=(ORIGINAL,),
        score=co_rewarding.co_rewarding_ii,
        kl_reference="teacher",
        kl_coef=0.001,
    ),
    RewardRule(
        name="co_rewarding_iii",
        groups=(ORIGINAL, REPHRASED, TEACHER_ORIGINAL, TEACHER_REPHRASED),
        trained=(ORIGINAL, REPHRASED),
        score=co_rewarding.co_rewarding_iii,
        kl_reference="teacher",
        kl_coef=0.001,
    ),
)
REWARD_RULES: dict[str, RewardRule] = {rule.name: rule for rule in _RULES}
