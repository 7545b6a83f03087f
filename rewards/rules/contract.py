"""The contract of a reward rule: the groups it asks for, those that vote, those it trains, and a pure function from a question's
completions to rewards, or to advantages with weights. `needs` lists everything that a rule reads besides answers. A rule never sees
model weights, time or the order of arrival.

Most rules are a *judge*, which scores one trained group by the answers of other groups. `label.from` says which groups these are, so
that one judge with four sources of labels is a family of rules: the majority vote of another wording or of the teacher is
Co-rewarding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from corewarding.dataflow.carriers import Completion, Float32, QuestionRollouts, ScoredGroup, TokenStatistics
from corewarding.dataflow.errors import UserError
from corewarding.dataflow.ids import CompletionId, Source, View
from corewarding.rewards.advantages import Normalize
from corewarding.rewards.settings import RuleSettings, VoterWeights

Need = Literal["gold", "token_statistics", "sampled_logprobs", "initial_answers", "similarity"]
KLReference = Literal["initial", "teacher", "none"]
LabelFrom = Literal["policy", "teacher", "other_view", "teacher_other_view"]
GroupKind = tuple[View, Source]

POLICY_ORIGINAL: GroupKind = ("original", "policy")
POLICY_REPHRASED: GroupKind = ("rephrased", "policy")
TEACHER_ORIGINAL: GroupKind = ("original", "teacher")
TEACHER_REPHRASED: GroupKind = ("rephrased", "teacher")
_ALL: tuple[GroupKind, ...] = (POLICY_ORIGINAL, POLICY_REPHRASED, TEACHER_ORIGINAL, TEACHER_REPHRASED)

Similarity = Callable[[Sequence[Completion]], Float32]
"""[G, G] similarity of each pair of completions, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class RuleContext:
    """Inputs of a rule besides the completions."""

    key: Callable[[str], str]  # equivalent answers have equal keys
    min_share: float  # a vote with a smaller share of winners among its voters abstains
    run_seed: int
    min_voters: int = 1  # a vote of fewer completions abstains
    weights: VoterWeights = "equal"  # how much each voter counts
    normalize: Normalize = "std"  # of advantages, for rules that return their own
    train_size: int | None = None  # completions trained in each trained group, the first ones; None: all
    settings: RuleSettings = field(default_factory=RuleSettings)
    known: Callable[[str], str | None] | None = None  # question id to its answer, if labels.budget bought it
    gold: Callable[[str], str | None] | None = None  # question id to answer; only for rules that need "gold"
    statistics: Mapping[CompletionId, TokenStatistics] | None = None  # only for rules that need "token_statistics"
    initial: Callable[[str, View], Sequence[str | None] | None] | None = (
        None  # only for rules that need "initial_answers"
    )
    similarity: Similarity | None = None  # only for rules that need "similarity"


Score = Callable[[QuestionRollouts, RuleContext], list[ScoredGroup]]


class Judge(Protocol):
    """Scores one trained group by the answers of the voters: one group, or both wordings for a judge of `both_wordings`."""

    def __call__(
        self, rollouts: QuestionRollouts, context: RuleContext, *, trained: GroupKind, voters: tuple[GroupKind, ...]
    ) -> ScoredGroup: ...


@dataclass(frozen=True, kw_only=True)
class RewardRule:
    """One row of the table in docs/algorithm.md. The defaults are those of the baselines."""

    name: str
    score: Score  # returns one ScoredGroup for each trained group, in the order of `trained`
    groups: tuple[GroupKind, ...] = (POLICY_ORIGINAL,)  # sampled for each question
    trained: tuple[GroupKind, ...] = (POLICY_ORIGINAL,)  # a subset of `groups`
    voters: tuple[GroupKind, ...] = ()  # the groups that elect labels: rollout.vote_size is their size
    needs: frozenset[Need] = frozenset()
    kl_reference: KLReference = "initial"  # used if the configuration sets none
    kl_coef: float = 0.005  # used if the configuration sets none
    judge: Judge | None = None  # None: label.from cannot change the rule
    both_wordings: bool = False  # the judge hears both wordings at once

    @property
    def needs_rephrased(self) -> bool:
        """Whether questions must have a rephrased wording."""
        return any(view == "rephrased" for view, _ in self.groups)

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher answers questions. (Its weights can be the KL reference even if it answers none.)"""
        return any(source == "teacher" for _, source in self.groups)

    def labelled(self, label_from: LabelFrom | None) -> RewardRule:
        """The same judge with labels from elsewhere; None: the rule as it is. UserError if its labels cannot come from there."""
        if label_from is None:
            return self
        if self.judge is None:
            raise UserError(f"label.from {label_from}: rule {self.name} elects no label that could come from elsewhere")
        if self.both_wordings and label_from not in ("policy", "teacher"):
            raise UserError(
                f"label.from {label_from}: rule {self.name} hears both wordings at once; it takes policy or teacher"
            )
        made = judged(self.name, self.judge, label_from, needs=self.needs, both_wordings=self.both_wordings)
        return dataclasses.replace(made, name=self.name)


def judged(
    name: str, judge: Judge, label_from: LabelFrom, *, needs: Iterable[Need] = (), both_wordings: bool = False
) -> RewardRule:
    """A rule whose trained groups `judge` scores by the answers of the groups that `label_from` names.

    policy, teacher: each trained group's own wording; only the original one is trained. other_view, teacher_other_view: each wording
    is judged by the other one, and both are trained. both_wordings: the judge hears both wordings of the source; both are trained.
    """
    source: Source = "teacher" if label_from.startswith("teacher") else "policy"
    crossed = label_from.endswith("other_view")
    trained = (POLICY_ORIGINAL, POLICY_REPHRASED) if crossed or both_wordings else (POLICY_ORIGINAL,)
    heard: dict[GroupKind, tuple[GroupKind, ...]] = {}
    for view, sampler in trained:
        wording: View = ("rephrased" if view == "original" else "original") if crossed else view
        both: tuple[GroupKind, ...] = (("original", source), ("rephrased", source))
        heard[view, sampler] = both if both_wordings else ((wording, source),)
    voters = tuple(kind for kind in _ALL if any(kind in kinds for kinds in heard.values()))

    def score(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
        return [judge(rollouts, context, trained=kind, voters=heard[kind]) for kind in trained]

    return RewardRule(
        name=name,
        score=score,
        groups=tuple(kind for kind in _ALL if kind in trained or kind in voters),
        trained=trained,
        voters=voters,
        needs=frozenset(needs),
        kl_reference="teacher" if source == "teacher" else "initial",
        kl_coef=0.001 if source == "teacher" else 0.005,
        judge=judge,
        both_wordings=both_wordings,
    )
