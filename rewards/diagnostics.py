"""Metrics of one update's questions, for people. The data set's answers are read here only for reports: nothing computed here reaches
a reward.

`QUESTION_METRICS` is a table from a metric's name to a function that gives one value for each question, group or completion that has
one. Their mean is reported; a metric without any value (no answers known, no second wording) is left out. A new metric is one function
and one row; a plug-in adds its own with `question_metric`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, wraps

import numpy as np

from corewarding.dataflow.carriers import Completion, QuestionRollouts, ScoredGroup
from corewarding.dataflow.ids import Source
from corewarding.dataflow.metrics import Metrics
from corewarding.dataflow.plugins import guarded
from corewarding.dataflow.registry import Registry
from corewarding.dataflow.votes import Vote
from corewarding.rewards.answers.key import canonical_key
from corewarding.rewards.collapse import repetition
from corewarding.rewards.rules.contract import (
    POLICY_ORIGINAL,
    POLICY_REPHRASED,
    TEACHER_ORIGINAL,
    TEACHER_REPHRASED,
    GroupKind,
)
from corewarding.rewards.voting import vote


@dataclass(frozen=True, kw_only=True)
class ScoredQuestions:
    """Everything a metric reads of one update."""

    rollouts: Sequence[QuestionRollouts]
    scored: Sequence[ScoredGroup]
    key: Callable[[str], str]  # equivalent answers have equal keys
    gold_keys: Mapping[str, str]  # question id to the key of its answer, for questions with a known answer

    @cached_property
    def policy(self) -> list[Completion]:
        """All completions of the policy."""
        return self._completions("policy")

    @cached_property
    def teacher(self) -> list[Completion]:
        """All completions of the teacher."""
        return self._completions("teacher")

    @cached_property
    def votes(self) -> list[tuple[str, dict[GroupKind, Vote]]]:
        """(question id, the vote of each of its groups). No vote abstains, whatever the rule, so rules can be compared."""
        return [
            (
                question.asked.question_id,
                {
                    (group.view, group.source): vote(completions, key=self.key)
                    for group, completions in question.groups.items()
                },
            )
            for question in self.rollouts
        ]

    def votes_of(self, source: Source) -> list[tuple[str, Vote]]:
        """(question id, vote) of each group of `source`."""
        return [(question, v) for question, kinds in self.votes for (_, who), v in kinds.items() if who == source]

    def _completions(self, source: Source) -> list[Completion]:
        return [c for question in self.rollouts for c in question.completions if c.id.source == source]


QuestionMetric = Callable[[ScoredQuestions], Iterable[float]]


def label_accuracy(questions: ScoredQuestions) -> list[float]:
    """1 or 0 for each trained group with a label and a known answer: whether they agree."""
    gold = questions.gold_keys
    judged = [(g.label, gold[g.id.question_id]) for g in questions.scored if g.id.question_id in gold]
    return [float(questions.key(label) == gold_key) for label, gold_key in judged if label is not None]


def answer_accuracy(questions: ScoredQuestions, completions: Sequence[Completion]) -> list[float]:
    """1 or 0 for each completion of a question with a known answer. A completion without an answer counts as wrong."""
    gold = questions.gold_keys
    return [
        float(c.answer is not None and questions.key(c.answer) == gold[c.id.question_id])
        for c in completions
        if c.id.question_id in gold
    ]


def vote_accuracy(questions: ScoredQuestions, source: Source) -> list[float]:
    """1 or 0 for each group of a question with a known answer."""
    gold = questions.gold_keys
    return [float(v.winner == gold[question]) for question, v in questions.votes_of(source) if question in gold]


def vote_agreement(questions: ScoredQuestions, pairs: Iterable[tuple[GroupKind, GroupKind]]) -> list[float]:
    """1 or 0 for each pair of groups of one question that both elected an answer."""
    return [
        float(kinds[one].winner == kinds[other].winner)
        for one, other in pairs
        for _, kinds in questions.votes
        if one in kinds and other in kinds and kinds[one].num_voters and kinds[other].num_voters
    ]


def answer_kinds(completions: Sequence[Completion], kinds: Collection[str]) -> list[float]:
    """1 or 0 for each answer: whether it is of one of these kinds (rewards/answers/key.py)."""
    return [float(canonical_key(c.answer).kind in kinds) for c in completions if c.answer is not None]


def top_answer_mass(questions: ScoredQuestions) -> list[float]:
    """The mass of the policy's most common answer over different questions; the answers of each question weigh 1 in total.

    Near 1 means one answer to every question, the collapse of a vote that judges itself. Empty for a single question.
    """
    by_question: dict[str, list[str]] = defaultdict(list)
    for completion in questions.policy:
        if completion.answer is not None:
            by_question[completion.id.question_id].append(questions.key(completion.answer))
    if len(by_question) < 2:
        return []
    mass: dict[str, float] = defaultdict(float)
    for keys in by_question.values():
        for answer in keys:
            mass[answer] += 1 / len(keys)
    return [max(mass.values()) / len(by_question)]


_TEACHER_POLICY = ((TEACHER_ORIGINAL, POLICY_ORIGINAL), (TEACHER_REPHRASED, POLICY_REPHRASED))
_ORIGINAL_REPHRASED = ((POLICY_ORIGINAL, POLICY_REPHRASED),)

_METRICS: dict[str, QuestionMetric] = {
    "reward/mean": lambda q: (float(reward) for group in q.scored for reward in group.rewards),
    "reward/policy_accuracy_frac": lambda q: answer_accuracy(q, q.policy),
    "reward/teacher_accuracy_frac": lambda q: answer_accuracy(q, q.teacher),
    "reward/weight_mean": lambda q: (float(w) for g in q.scored if g.weights is not None for w in g.weights),
    "reward/penalised_frac": lambda q: (float(g.offset < 0) for g in q.scored if g.weights is not None),
    "label/abstained_frac": lambda q: (float(group.abstained) for group in q.scored),
    "label/share_mean": lambda q: (group.vote.share for group in q.scored if group.vote is not None),
    "label/accuracy_frac": label_accuracy,
    "vote/no_answer_frac": lambda q: (float(c.answer is None) for c in q.policy),
    "vote/teacher_no_answer_frac": lambda q: (float(c.answer is None) for c in q.teacher),
    "vote/text_answer_frac": lambda q: answer_kinds(q.policy, ("text", "unevaluated")),
    "vote/top_answer_frac": top_answer_mass,
    "vote/share_mean": lambda q: (v.share for _, v in q.votes_of("policy")),
    "vote/teacher_share_mean": lambda q: (v.share for _, v in q.votes_of("teacher")),
    "vote/num_answers_mean": lambda q: (float(len(v.classes)) for _, v in q.votes_of("policy")),
    "vote/accuracy_frac": lambda q: vote_accuracy(q, "policy"),
    "vote/teacher_accuracy_frac": lambda q: vote_accuracy(q, "teacher"),
    "vote/agreement_teacher_policy_frac": lambda q: vote_agreement(q, _TEACHER_POLICY),
    "vote/agreement_original_rephrased_frac": lambda q: vote_agreement(q, _ORIGINAL_REPHRASED),
    "length/tokens_mean": lambda q: (float(len(c.token_ids)) for c in q.policy),
    "length/teacher_tokens_mean": lambda q: (float(len(c.token_ids)) for c in q.teacher),
    "length/repetition_mean": lambda q: (repetition(c.token_ids) for c in q.policy),
    "length/truncated_frac": lambda q: (float(c.truncated) for c in q.policy),
    "length/teacher_truncated_frac": lambda q: (float(c.truncated) for c in q.teacher),
}

QUESTION_METRICS: Registry[QuestionMetric] = Registry("metric")
for _name, _metric in _METRICS.items():
    QUESTION_METRICS.register(_name, _metric)


def question_metric(name: str) -> Callable[[QuestionMetric], QuestionMetric]:
    """Registers the decorated function as a metric of every update. For plug-ins; the function comes back unchanged.

    name: `area/quantity`. The function takes ScoredQuestions and gives values, whose mean is reported if there is any.
    """

    def register(metric: QuestionMetric) -> QuestionMetric:
        @wraps(metric)
        def values(questions: ScoredQuestions) -> list[float]:
            return list(metric(questions))  # here, so that errors of a generator count as the plug-in's

        QUESTION_METRICS.register(name, guarded(values, what=f"metric {name!r}"), depth=2)
        return metric

    return register


def reward_diagnostics(
    rollouts: Sequence[QuestionRollouts],
    scored: Sequence[ScoredGroup],
    *,
    key: Callable[[str], str],
    gold: Callable[[str], str | None] | None,
) -> Metrics:
    """All QUESTION_METRICS of the questions of one update, and the distributions of lengths and vote shares.

    gold: question id to answer; None if the data set has no answers. It is called once for each question.
    """
    cached_key = cache(key)
    ids = {question.asked.question_id for question in rollouts} | {group.id.question_id for group in scored}
    answers = {} if gold is None else {question: gold(question) for question in sorted(ids)}
    gold_keys = {question: cached_key(answer) for question, answer in answers.items() if answer is not None}
    questions = ScoredQuestions(rollouts=rollouts, scored=scored, key=cached_key, gold_keys=gold_keys)
    values = {name: list(metric(questions)) for name, metric in QUESTION_METRICS.items()}
    means = Metrics(scalars={name: float(np.mean(found)) for name, found in values.items() if found})
    return Metrics.union([means, _distributions(questions)])


def _distributions(questions: ScoredQuestions) -> Metrics:
    lengths = np.array([len(c.token_ids) for c in questions.policy], np.float32)
    shares = np.array([v.share for _, v in questions.votes_of("policy")], np.float32)
    histograms = {"length/completion_tokens": lengths, "vote/share": shares}
    return Metrics(
        scalars={"length/tokens_max": float(lengths.max())} if len(lengths) else {},
        histograms={name: values for name, values in histograms.items() if len(values)},
    )
