"""What the scores of one update say of the completions that it took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from corewarding.dataflow.ids import GroupId
from corewarding.launch.report.journal.departures import Fate, Left, Sampled
from corewarding.learner.replay.events import DropReason
from corewarding.learner.replay.journal.records import Scored
from corewarding.learner.replay.journal.segments import JournalError


class Scores:
    """The scores of one update, by completion."""

    def __init__(self, scored: Scored) -> None:
        self._update = scored.update
        rows = zip(scored.samples, scored.advantages.tolist(), scored.in_loss.tolist(), strict=True)
        self._samples = {name: (advantage, in_loss) for name, advantage, in_loss in rows}
        self._groups: dict[GroupId, tuple[str | None, list[float]]] = {}
        at = 0
        for name, label, size in zip(scored.groups, scored.labels, scored.sizes.tolist(), strict=True):
            self._groups[name] = label, scored.rewards[at : at + size].tolist()
            at += size

    def of(self, name: GroupId, group: Sequence[Sampled]) -> Iterator[Left]:
        label, rewards = self._groups.pop(name, (None, []))
        for index, one in enumerate(group):
            known = Left(completion=one, fate="voted", update=self._update, label=label)
            if index >= len(rewards):  # of a group that is not trained, or more than are trained of it
                yield known
                continue
            known = replace(known, reward=rewards[index])
            if (sample := self._samples.pop(one.id, None)) is None:
                yield replace(known, fate="dropped", reason="zero_advantage", advantage=0.0)
            else:
                yield replace(known, fate="trained" if sample[1] else "withheld", advantage=sample[0])

    def refuse_others(self, folder: Path) -> None:
        """JournalError if the update scores what it did not take."""
        for name in (*self._groups, *self._samples):
            raise JournalError(f"the journal in {folder} scores {name} in update {self._update} and does not hold it")


def chief(left: Sequence[Left]) -> Fate:
    """What became of a question: the first of these that became of one of its completions."""
    fates = {one.fate for one in left}
    order: tuple[Fate, ...] = ("trained", "withheld", "dropped", "voted")
    return next((fate for fate in order if fate in fates), "voted")


def reason_of(left: Sequence[Left]) -> DropReason | None:
    return "zero_advantage" if chief(left) == "dropped" else None
