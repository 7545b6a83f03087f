"""What is reported of an update's rewards, votes and answers. Sees held answers where they exist; feeds no reward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from dataflow.metrics import Metrics
from dataflow.types import Completion, QuestionRollouts, ScoredGroup
from rewards.voting import vote

Gold = Callable[[str], str | None]
Key = Callable[[str], str]


def batch_metrics(
    taken: Sequence[QuestionRollouts], scored: Sequence[ScoredGroup], *, gold: Gold, key: Key
) -> Metrics:
    """Scalars under reward/, vote/, label/, answer/ and length/ of one update's questions, and two histograms."""
    policy = [c for r in taken for c in r.completions if c.id.source == "policy"]
    lengths = np.array([len(c.token_ids) for c in policy], np.float32)
    votes = [group.vote for group in scored if group.vote is not None]
    shares = np.array([v.share for v in votes], np.float32)
    scalars = _rewards(scored) | _answers(policy, key) | _gold_scalars(scored, policy, gold=gold, key=key)
    scalars |= _agreement(taken, key)
    scalars |= {
        "length/mean": float(lengths.mean()),
        "length/max": float(lengths.max()),
        "length/truncated_frac": float(np.mean([c.truncated for c in policy])),
    }
    if votes:
        scalars |= {
            "vote/share": float(shares.mean()),
            "vote/num_distinct": float(np.mean([len(v.classes) for v in votes])),
            "vote/abstained_frac": float(np.mean([v.winner is None for v in votes])),
        }
    histograms = {"length/policy": lengths} | ({"vote/share": shares} if votes else {})
    return Metrics(scalars=scalars, histograms=histograms)


def _rewards(scored: Sequence[ScoredGroup]) -> dict[str, float]:
    rewards = np.concatenate([group.rewards for group in scored])
    scalars = {"reward/mean": float(rewards.mean()), "reward/std": float(rewards.std())}
    flat = [group for group in scored if np.all(group.rewards == group.rewards[0])]
    causes = Counter(
        "abstained" if g.abstained else "all_right" if g.rewards[0] == 1 else "all_wrong" if g.rewards[0] == 0 else "equal"
        for g in flat
    )
    for cause in ("all_right", "all_wrong", "abstained"):
        scalars[f"advantage/zero_{cause}_frac"] = causes[cause] / len(scored)
    return scalars


def _answers(policy: Sequence[Completion], key: Key) -> dict[str, float]:
    """`top_mass` is the share of the commonest answer over *different* questions: near 1 in a collapsed model."""
    keys = [(c.id.question_id, key(c.answer)) for c in policy if c.answer is not None]
    questions_by_answer = Counter(answer for _, answer in set(keys))
    num_questions = len({c.id.question_id for c in policy})
    top = max(questions_by_answer.values(), default=0)
    return {"answer/none_frac": 1 - len(keys) / len(policy), "answer/top_mass": top / num_questions}


def _gold_scalars(
    scored: Sequence[ScoredGroup], policy: Sequence[Completion], *, gold: Gold, key: Key
) -> dict[str, float]:
    """Label accuracy counts abstained labels as wrong; questions without a held answer are left out of both numbers."""
    answers = {question: gold(question) for question in sorted({c.id.question_id for c in policy})}
    keys = {question: key(answer) for question, answer in answers.items() if answer is not None}
    scalars = {}
    labels = [g for g in scored if g.group.question_id in keys and (g.label is not None or g.abstained)]
    if labels:
        right = [g.label is not None and key(g.label) == keys[g.group.question_id] for g in labels]
        scalars["label/accuracy"] = float(np.mean(right))
    judged = [c for c in policy if c.id.question_id in keys]
    if judged:
        correct = [c.answer is not None and key(c.answer) == keys[c.id.question_id] for c in judged]
        scalars["answer/accuracy"] = float(np.mean(correct))
    return scalars


def _agreement(taken: Sequence[QuestionRollouts], key: Key) -> dict[str, float]:
    """Share of questions on which two votes elect the same answer: teacher and policy, and the two wordings."""
    scalars = {}
    pairs = {
        "vote/agree_teacher_policy_frac": (("original", "policy"), ("original", "teacher")),
        "vote/agree_views_frac": (("original", "policy"), ("rephrased", "policy")),
    }
    present = {(g.view, g.source) for g in taken[0].groups}
    for name, (one, other) in pairs.items():
        if one in present and other in present:
            same = [
                vote(r.group(*one), key=key, min_share=0).winner == vote(r.group(*other), key=key, min_share=0).winner  # type: ignore[arg-type]
                for r in taken
            ]
            scalars[name] = float(np.mean(same))
    return scalars
