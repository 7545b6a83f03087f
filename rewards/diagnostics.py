"""What an update's rewards looked like, for people. The data set's answers are read here for reporting alone: nothing
computed here ever reaches a reward. A quantity that cannot be had (no answers, no second view) is left out, not 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

import numpy as np

from corewarding.dataflow.carriers import Completion, QuestionRollouts, ScoredGroup, Vote
from corewarding.dataflow.ids import Source
from corewarding.dataflow.metrics import Metrics
from corewarding.rewards.answers.key import canonical_key
from corewarding.rewards.collapse import repetition
from corewarding.rewards.rules.contract import GroupKind
from corewarding.rewards.voting import vote

Key = Callable[[str], str]
Votes = list[tuple[str, dict[GroupKind, Vote]]]  # (question id, the vote of each of its groups)


def reward_diagnostics(
    rollouts: Sequence[QuestionRollouts],
    scored: Sequence[ScoredGroup],
    *,
    key: Key,
    gold: Callable[[str], str | None] | None,
) -> Metrics:
    """`reward/`, `label/`, `vote/` and `length/` metrics of the questions of one update.

    gold: question id to answer, or None where the data set has none (then no accuracy is reported).
    """
    cached_key = cache(key)
    questions = {question.asked.question_id for question in rollouts} | {group.id.question_id for group in scored}
    answers = {} if gold is None else {question: gold(question) for question in sorted(questions)}
    gold_keys = {question: cached_key(answer) for question, answer in answers.items() if answer is not None}
    votes: Votes = [
        (
            question.asked.question_id,
            {
                (group.view, group.source): vote(completions, key=cached_key, min_share=0.0)
                for group, completions in question.groups.items()
            },
        )
        for question in rollouts
    ]
    return Metrics.union(
        [
            _of_rewards(scored, key=cached_key, gold_keys=gold_keys),
            _of_completions(rollouts, key=cached_key, gold_keys=gold_keys),
            _of_votes(votes, gold_keys=gold_keys),
        ]
    )


def _of_rewards(scored: Sequence[ScoredGroup], *, key: Key, gold_keys: Mapping[str, str]) -> Metrics:
    """Rewards and labels of the trained groups. A label's accuracy is over groups whose question has an answer."""
    judged = [
        (g.label, gold_keys[g.id.question_id]) for g in scored if g.label is not None and g.id.question_id in gold_keys
    ]
    means: dict[str, Iterable[float]] = {
        "reward/mean": (float(reward) for group in scored for reward in group.rewards),
        "label/abstained_frac": (float(group.abstained) for group in scored),
        "label/share_mean": (group.vote.share for group in scored if group.vote is not None),
        "label/accuracy_frac": (float(key(label) == gold_key) for label, gold_key in judged),
    }
    return Metrics(scalars=_means(means))


def _of_completions(rollouts: Sequence[QuestionRollouts], *, key: Key, gold_keys: Mapping[str, str]) -> Metrics:
    """Answers and lengths of single completions. A completion without an answer counts as wrong."""
    policy = [c for question in rollouts for c in question.completions if c.id.source == "policy"]
    teacher = [c for question in rollouts for c in question.completions if c.id.source == "teacher"]

    def right(completion: Completion) -> float:
        return float(completion.answer is not None and key(completion.answer) == gold_keys[completion.id.question_id])

    scalars = _means(
        {
            "reward/policy_accuracy_frac": (right(c) for c in policy if c.id.question_id in gold_keys),
            "reward/teacher_accuracy_frac": (right(c) for c in teacher if c.id.question_id in gold_keys),
            "vote/no_answer_frac": (float(c.answer is None) for c in policy),
            "vote/teacher_no_answer_frac": (float(c.answer is None) for c in teacher),
            "vote/text_answer_frac": _kinds(policy, ("text", "unevaluated")),
            "vote/top_answer_frac": _top_answer(policy, key=key),
            "length/tokens_mean": (float(len(c.token_ids)) for c in policy),
            "length/teacher_tokens_mean": (float(len(c.token_ids)) for c in teacher),
            "length/repetition_mean": (repetition(c.token_ids) for c in policy),
            "length/truncated_frac": (float(c.truncated) for c in policy),
            "length/teacher_truncated_frac": (float(c.truncated) for c in teacher),
        }
    )
    if not policy:
        return Metrics(scalars=scalars)
    lengths = np.array([len(c.token_ids) for c in policy], np.float32)
    return Metrics(
        scalars=scalars | {"length/tokens_max": float(lengths.max())}, histograms={"length/completion_tokens": lengths}
    )


def _kinds(completions: Sequence[Completion], kinds: tuple[str, ...]) -> list[float]:
    """1 or 0 for each answer: whether it is of one of these kinds (rewards/answers/key.py)."""
    return [float(canonical_key(c.answer).kind in kinds) for c in completions if c.answer is not None]


def _of_votes(votes: Votes, *, gold_keys: Mapping[str, str]) -> Metrics:
    """What each group would elect at min_share 0, whatever the rule: so rules can be compared with each other."""

    def of(source: Source) -> list[tuple[str, Vote]]:
        return [(question, v) for question, by_kind in votes for (_, who), v in by_kind.items() if who == source]

    def agreement(pairs: Iterable[tuple[GroupKind, GroupKind]]) -> list[float]:
        """1 or 0 for each pair of groups that both elected an answer."""
        return [
            float(by_kind[one].winner == by_kind[other].winner)
            for one, other in pairs
            for _, by_kind in votes
            if one in by_kind and other in by_kind and by_kind[one].num_voters and by_kind[other].num_voters
        ]

    def accuracy(source: Source) -> list[float]:
        return [float(v.winner == gold_keys[question]) for question, v in of(source) if question in gold_keys]

    scalars = _means(
        {
            "vote/share_mean": (v.share for _, v in of("policy")),
            "vote/teacher_share_mean": (v.share for _, v in of("teacher")),
            "vote/num_answers_mean": (float(len(v.classes)) for _, v in of("policy")),
            "vote/accuracy_frac": accuracy("policy"),
            "vote/teacher_accuracy_frac": accuracy("teacher"),
            "vote/agreement_teacher_policy_frac": agreement(
                ((view, "teacher"), (view, "policy")) for view in ("original", "rephrased")
            ),
            "vote/agreement_original_rephrased_frac": agreement([(("original", "policy"), ("rephrased", "policy"))]),
        }
    )
    shares = np.array([v.share for _, v in of("policy")], np.float32)
    return Metrics(scalars=scalars, histograms={"vote/share": shares} if len(shares) else {})


def _top_answer(completions: Sequence[Completion], *, key: Key) -> list[float]:
    """The mass of the most common answer over different questions: each question's answers weigh 1 in total.

    Near 1 means one answer to every question, the collapse of a vote that judges itself. Empty for one question alone.
    """
    by_question: dict[str, list[str]] = defaultdict(list)
    for completion in completions:
        if completion.answer is not None:
            by_question[completion.id.question_id].append(key(completion.answer))
    if len(by_question) < 2:
        return []
    mass: dict[str, float] = defaultdict(float)
    for keys in by_question.values():
        for answer in keys:
            mass[answer] += 1 / len(keys)
    return [max(mass.values()) / len(by_question)]


def _means(quantities: Mapping[str, Iterable[float]]) -> dict[str, float]:
    """The mean of each quantity that has any value."""
    listed = {name: list(values) for name, values in quantities.items()}
    return {name: float(np.mean(values)) for name, values in listed.items() if values}
