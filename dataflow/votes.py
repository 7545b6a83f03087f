"""Votes over answers, and the answers of the initial model."""

from __future__ import annotations

from dataclasses import dataclass

from corewarding.dataflow.ids import View


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteClass:
    """One equivalence class of answers within a vote."""

    answer: str  # the spelling of its first member
    sample_indices: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """The outcome of one group's vote. `winner` is None if it abstained."""

    winner: str | None  # key of the winning class
    answer: str | None  # its first member's spelling
    share: float  # winners / voters, 0 without voters
    num_voters: int
    classes: tuple[VoteClass, ...]  # largest first, ties by first sample index
    version: int  # oldest token among the voters' completions: the pseudo-label's version

    def __repr__(self) -> str:
        votes = {one.answer: len(one.sample_indices) for one in self.classes}
        return f"Vote(answer={self.answer!r}, share={self.share:.2f}, votes={votes}, version={self.version})"


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialAnswers:
    """What the initial model answered to one wording of a question, sampled once before training."""

    question_id: str
    view: View
    answers: tuple[str | None, ...]  # by sample index; None: no answer
