"""Scores the questions of the replay buffer by the run's reward rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup, TokenStatistics
from corewarding.dataflow.ids import View
from corewarding.dataflow.votes import InitialAnswers
from corewarding.learner.replay.admission import AdmissionLimits
from corewarding.questions.gold import GoldAnswers
from corewarding.rewards.advantages import Normalize
from corewarding.rewards.answers.key import answer_key
from corewarding.rewards.rules.contract import GroupKind, LabelFrom, RewardRule, RuleContext, Similarity
from corewarding.rewards.rules.labels import score_question
from corewarding.rewards.rules.table import REWARD_RULES
from corewarding.rewards.settings import RuleSettings, VoteSettings
from corewarding.rewards.similarity import ngram_similarity


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferPlan:
    """The part of a run's configuration that the buffer needs."""

    rule: str
    group_size: int  # completions of a trained group that are trained
    run_seed: int
    incarnation: int
    limits: AdmissionLimits
    label_from: LabelFrom | None = None
    vote_size: int | None = None  # completions of a group that votes; None: group_size
    known: tuple[str, ...] = ()  # questions whose answers are known (labels.budget)
    vote: VoteSettings = field(default_factory=VoteSettings)
    rule_options: RuleSettings = field(default_factory=RuleSettings)
    normalize: Normalize = "std"
    mask_truncated: bool = False
    skip_zero_advantage: bool = False
    num_sample_questions: int = 4  # questions per update whose completions go to the sample log


class Scorer:
    """The reward rule with everything it may read."""

    def __init__(self, plan: BufferPlan, gold: GoldAnswers) -> None:
        self._plan, self._gold = plan, gold
        self._known = frozenset(plan.known)
        self._initial: dict[tuple[str, View], tuple[str | None, ...]] = {}
        self.rule: RewardRule = REWARD_RULES[plan.rule].labelled(plan.label_from)
        self._similarity = _similarity(plan.rule_options) if "similarity" in self.rule.needs else None
        self.key: Callable[[str], str] = partial(answer_key, equivalence=plan.vote.equivalence, units=plan.vote.units)

    @property
    def sizes(self) -> dict[GroupKind, int]:
        """Completions of each group that the rule asks for."""
        voted = self._plan.vote_size or self._plan.group_size
        return {kind: voted if kind in self.rule.voters else self._plan.group_size for kind in self.rule.groups}

    def know_initial(self, answers: Iterable[InitialAnswers]) -> None:
        """Takes in the initial model's answers, for rules that need them; before any question is scored."""
        self._initial = {(one.question_id, one.view): one.answers for one in answers}

    def initial_answers(self) -> list[InitialAnswers]:
        """What `know_initial` was given."""
        return [
            InitialAnswers(question_id=question_id, view=view, answers=answers)
            for (question_id, view), answers in self._initial.items()
        ]

    def score(
        self, rollouts: QuestionRollouts, statistics: Sequence[TokenStatistics] | None = None
    ) -> list[ScoredGroup]:
        """The question's trained groups with their rewards. statistics: of the trained completions, for rules that need them."""
        return score_question(self.rule, rollouts, self._context(statistics))

    def _context(self, statistics: Sequence[TokenStatistics] | None) -> RuleContext:
        plan, needs = self._plan, self.rule.needs
        return RuleContext(
            key=self.key,
            min_share=plan.vote.min_share,
            min_voters=plan.vote.min_voters,
            weights=plan.vote.weights,
            normalize=plan.normalize,
            train_size=plan.group_size,
            settings=plan.rule_options,
            run_seed=plan.run_seed,
            known=self._bought if self._known else None,
            gold=partial(self._gold.read, reader="reward") if "gold" in needs else None,
            statistics=None if statistics is None else {one.id: one for one in statistics},
            initial=self._initially if "initial_answers" in needs else None,
            similarity=self._similarity,
        )

    def _bought(self, question_id: str) -> str | None:
        """The answer of a question within labels.budget; only these are read."""
        return self._gold.read(question_id, reader="reward") if question_id in self._known else None

    def _initially(self, question_id: str, view: View) -> tuple[str | None, ...] | None:
        return self._initial.get((question_id, view))


def _similarity(options: RuleSettings) -> Similarity:
    if options.evol_similarity == "ngrams":
        return partial(ngram_similarity, n=options.evol_ngram)
    from corewarding.learner.replay.embedding import EmbeddingSimilarity  # torch, only where it is needed

    return EmbeddingSimilarity(str(options.evol_embedding_model))
