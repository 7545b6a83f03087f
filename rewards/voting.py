"""From a group of completions to the answer it elects. The outcome depends on the completions' sample indices and
answers alone, never on the order in which they arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dataflow.types import Completion, Vote, VoteClass


def vote(completions: Sequence[Completion], *, key: Callable[[str], str], min_share: float) -> Vote:
    """The most frequent class of answers in one group (docs/algorithm.md, "Reward rules"; arXiv 2508.00410).

    completions: one group, in any order; those without an answer do not vote.
    key: equivalent answers have equal keys.
    min_share: the vote abstains where winners / voters is below it, and where nobody votes.
    A tie goes to the class whose first member has the smallest sample index. `version` is that of the oldest token in
    the voters' completions, or in all of them where none voted. Raises ValueError for a group of none.
    """
    if not completions:
        raise ValueError("a vote needs at least one completion, got none: an empty group has no version")
    members: dict[str, list[Completion]] = {}
    for completion in sorted(completions, key=lambda c: c.id.sample_index):
        if completion.answer is not None:
            members.setdefault(key(completion.answer), []).append(completion)

    # Classes were opened in the order of their first member, and a stable sort keeps that order within a tie.
    ranked = sorted(members.items(), key=lambda item: -len(item[1]))
    voters = [completion for group in members.values() for completion in group]
    share = len(ranked[0][1]) / len(voters) if voters else 0.0
    elected = bool(voters) and share >= min_share
    return Vote(
        winner=ranked[0][0] if elected else None,
        answer=ranked[0][1][0].answer if elected else None,
        share=share,
        num_voters=len(voters),
        classes=tuple(
            VoteClass(answer=group[0].answer or "", sample_indices=tuple(c.id.sample_index for c in group))
            for _, group in ranked
        ),
        version=min(completion.oldest_version for completion in voters or completions),
    )
