"""A group's answers elect a pseudo-label. The outcome is a function of the answers by sample index, never of arrival order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dataflow.types import Completion, Vote, VoteClass


def vote(completions: Sequence[Completion], *, key: Callable[[str], str], min_share: float) -> Vote:
    """Majority over equivalence classes; completions without an answer do not vote.

    A tie goes to the class whose first member has the smallest sample index. It abstains (`winner` None) without a voter,
    or where winners / voters is below `min_share`. `version` is that of the oldest voting token (of any token, if none voted).
    """
    members: dict[str, list[Completion]] = {}
    for completion in sorted(completions, key=lambda c: c.id.sample_index):
        if completion.answer is not None:
            members.setdefault(key(completion.answer), []).append(completion)
    ranked = sorted(members.items(), key=lambda item: (-len(item[1]), item[1][0].id.sample_index))
    classes = tuple(
        VoteClass(answer=str(group[0].answer), sample_indices=tuple(c.id.sample_index for c in group))
        for _, group in ranked
    )
    voters = [c for _, group in ranked for c in group]
    version = min((c.oldest_version for c in voters or completions), default=0)
    if not ranked:
        return Vote(winner=None, answer=None, share=0.0, num_voters=0, classes=(), version=version)
    share = len(ranked[0][1]) / len(voters)
    elected = share >= min_share
    return Vote(
        winner=ranked[0][0] if elected else None,
        answer=classes[0].answer if elected else None,
        share=share,
        num_voters=len(voters),
        classes=classes,
        version=version,
    )
