"""Joins groups of completions into ready questions: a question is ready when all groups that its rule asks for are here.

A question is held from its admission until it ends, which means that an update took it or that it was evicted. Ended questions
are remembered for a while, so that a group sent again is recognized as a duplicate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from corewarding.dataflow.carriers import Completion, QuestionRollouts
from corewarding.dataflow.ids import AskedId, GroupId
from corewarding.learner.replay.events import RefusalReason
from corewarding.rewards.rules.contract import GroupKind

REMEMBERED = 20_000
"""How many ended questions are remembered. A late duplicate of an older one counts as unasked."""


class Joining:
    """The groups of all admitted questions that have not ended."""

    def __init__(self, sizes: Mapping[GroupKind, int], *, incarnation: int) -> None:
        """sizes: completions of each group that the rule asks for. Completions of another incarnation are refused."""
        self._sizes = dict(sizes)
        self._incarnation = incarnation
        self._groups: dict[AskedId, dict[GroupId, tuple[Completion, ...]]] = {}
        self._ended: dict[AskedId, None] = {}  # oldest first
        self.num_ready = 0  # since the start, ended questions included

    def expect(self, asked: AskedId) -> None:
        """The question was admitted; its groups may come."""
        self._groups[asked] = {}

    def refusal(self, completions: Sequence[Completion]) -> RefusalReason | None:
        """Why this group is not taken in; None if it may be added. AssertionError if it is not exactly one group."""
        group = completions[0].id.group
        indices = sorted(completion.id.sample_index for completion in completions)
        assert all(completion.id.group == group for completion in completions), f"{group}: one message mixes groups"
        size = self._sizes.get((group.view, group.source), len(indices))
        assert indices == list(range(size)), f"{group}: samples {indices} are not one group"
        if any(completion.incarnation != self._incarnation for completion in completions):
            return "lost_incarnation"
        if group.asked in self._ended:
            return "duplicate"
        if group.asked not in self._groups or (group.view, group.source) not in self._sizes:
            return "unasked"
        return "duplicate" if group in self._groups[group.asked] else None

    def add(self, completions: Sequence[Completion]) -> QuestionRollouts | None:
        """Takes in a group that is not refused; returns its question if that is ready now."""
        group = completions[0].id.group
        groups = self._groups[group.asked]
        groups[group] = tuple(sorted(completions, key=lambda completion: completion.id.sample_index))
        if len(groups) < len(self._sizes):
            return None
        self.num_ready += 1
        return QuestionRollouts(asked=group.asked, groups=groups)

    def end(self, asked: AskedId) -> list[Completion]:
        """The question was taken by an update, evicted or given up. Returns its completions."""
        groups = self._groups.pop(asked)
        self._ended[asked] = None
        if len(self._ended) > REMEMBERED:
            del self._ended[next(iter(self._ended))]
        return [completion for group in groups.values() for completion in group]

    def groups(self) -> list[tuple[Completion, ...]]:
        """The groups of the questions that have not ended."""
        return [group for groups in self._groups.values() for group in groups.values()]

    def missing(self) -> list[GroupId]:
        """The groups that are asked for and not here, in the order of admission."""
        return [
            group
            for asked, groups in self._groups.items()
            for kind in self._sizes
            if (group := asked.group(*kind)) not in groups
        ]

    def snapshot(self) -> dict[str, Any]:
        """Everything but the groups themselves, for the codec."""
        return {"ended": list(self._ended), "num_ready": self.num_ready}

    def restore(self, state: Mapping[str, Any], pending: Sequence[AskedId]) -> None:
        """Takes in a snapshot; its groups are to be added next. pending: the questions that have not ended."""
        self._groups = {asked: {} for asked in pending}
        self._ended = dict.fromkeys(state["ended"])

    @property
    def num_completions(self) -> int:
        """Completions of the questions that have not ended."""
        return sum(len(group) for groups in self._groups.values() for group in groups.values())
