"""The contract of a reward rule: the groups it asks for, the groups it trains, and a pure function from a question's completions to
rewards. `needs` lists everything a rule reads besides text. A rule never sees weights, time or the order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup, TokenStatistics
from corewarding.dataflow.ids import CompletionId, Source, View

Need = Literal["gold", "token_statistics"]
KLReference = Literal["initial", "teacher", "none"]
GroupKind = tuple[View, Source]

POLICY_ORIGINAL: GroupKind = ("original", "policy")
POLICY_REPHRASED: GroupKind = ("rephrased", "policy")
TEACHER_ORIGINAL: GroupKind = ("original", "teacher")
TEACHER_REPHRASED: GroupKind = ("rephrased", "teacher")


@dataclass(frozen=True, kw_only=True)
class RuleContext:
    """Inputs of a rule besides the completions."""

    key: Callable[[str], str]  # equivalent answers have equal keys
    min_share: float  # a vote with a smaller share of winners among its voters abstains
    run_seed: int
    min_voters: int = 1  # a vote of fewer completions abstains
    gold: Callable[[str], str | None] | None = None  # question id to answer; only for rules that need "gold"
    statistics: Mapping[CompletionId, TokenStatistics] | None = None  # only for rules that need "token_statistics"


Score = Callable[[QuestionRollouts, RuleContext], list[ScoredGroup]]


@dataclass(frozen=True, kw_only=True)
class RewardRule:
    """One row of the table in docs/algorithm.md. The defaults are those of the baselines."""

    name: str
    score: Score  # returns one ScoredGroup for each trained group, in the order of `trained`
    groups: tuple[GroupKind, ...] = (POLICY_ORIGINAL,)  # sampled for each question
    trained: tuple[GroupKind, ...] = (POLICY_ORIGINAL,)  # a subset of `groups`
    needs: frozenset[Need] = frozenset()
    kl_reference: KLReference = "initial"  # used if the configuration sets none
    kl_coef: float = 0.005  # used if the configuration sets none

    @property
    def needs_rephrased(self) -> bool:
        """Whether questions must have a rephrased wording."""
        return any(view == "rephrased" for view, _ in self.groups)

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher answers questions. (Its weights can be the KL reference even if it answers none.)"""
        return any(source == "teacher" for _, source in self.groups)
