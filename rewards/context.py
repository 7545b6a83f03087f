"""What a reward rule may look at besides the completions, and how a label becomes rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dataflow.types import Completion, CompletionId, ScoredGroup, TokenStatistics, Vote
from rewards.voting import vote


@dataclass(frozen=True, kw_only=True)
class RuleContext:
    """`gold` is set for ground_truth alone, `statistics` for the confidence rules alone."""

    key: Callable[[str], str]
    min_share: float
    run_seed: int
    gold: Callable[[str], str | None] | None = None
    statistics: Mapping[CompletionId, TokenStatistics] | None = None

    def vote(self, completions: Sequence[Completion]) -> Vote:
        return vote(completions, key=self.key, min_share=self.min_share)


def judge(
    completions: tuple[Completion, ...],
    *,
    winner: str | None,
    label: str | None,
    elected_by: Vote | None,
    key: Callable[[str], str],
) -> ScoredGroup:
    """1.0 for each completion whose answer has the key `winner`, else 0.0; all 0.0 where the label abstained (None)."""
    right = [c.answer is not None and winner is not None and key(c.answer) == winner for c in completions]
    return ScoredGroup(
        group=completions[0].id.group,
        completions=completions,
        rewards=np.array(right, np.float32),
        label=label,
        vote=elected_by,
        abstained=winner is None,
    )
