"""What a reward rule is: which groups it asks for, which of them are trained, and a pure function from a question's
completions to rewards. A rule says in `needs` everything it reads beyond text; it never sees weights, time or the order
of arrival.
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


@dataclass(frozen=True, kw_only=True)
class RuleContext:
    """What a rule may read besides the completions themselves."""

    key: Callable[[str], str]  # equivalent answers have equal keys
    min_share: float  # a vote below this share of its voters abstains
    run_seed: int
    min_voters: int = 1  # a vote of fewer abstains
    gold: Callable[[str], str | None] | None = None  # question id to answer; given only to rules that need "gold"
    statistics: Mapping[CompletionId, TokenStatistics] | None = None  # given to rules that need "token_statistics"


Score = Callable[[QuestionRollouts, RuleContext], list[ScoredGroup]]


@dataclass(frozen=True, kw_only=True)
class RewardRule:
    """One row of the table in docs/algorithm.md."""

    name: str
    groups: tuple[GroupKind, ...]  # asked for each question
    trained: tuple[GroupKind, ...]  # a subset of groups, in the order in which `score` returns them
    needs: frozenset[Need]
    kl_reference: KLReference  # the paper's, where the configuration names none
    kl_coef: float  # the same
    score: Score

    @property
    def needs_rephrased(self) -> bool:
        """Whether questions must have a rephrased wording."""
        return any(view == "rephrased" for view, _ in self.groups)

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher answers questions (its weights may be a KL reference all the same)."""
        return any(source == "teacher" for _, source in self.groups)
