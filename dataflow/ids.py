"""Names: of an asking, a group, a completion, and of weights. They are keys in logs, samples, seeds and messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

View = Literal["original", "rephrased"]
Source = Literal["policy", "teacher"]
Channel = Literal["policy", "teacher"]

VIEWS: tuple[View, ...] = ("original", "rephrased")
SOURCES: tuple[Source, ...] = ("policy", "teacher")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class AskedId:
    """One asking of a question: the unit of admission, deadlines, requeue, eviction and drops."""

    question_id: str
    epoch: int

    def __str__(self) -> str:
        return f"{self.question_id}/e{self.epoch}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class GroupId:
    """The G completions of one (question, epoch, view, source)."""

    question_id: str
    epoch: int
    view: View
    source: Source

    @property
    def asked(self) -> AskedId:
        return AskedId(question_id=self.question_id, epoch=self.epoch)

    def completion(self, sample_index: int) -> CompletionId:
        return CompletionId(
            question_id=self.question_id,
            epoch=self.epoch,
            view=self.view,
            source=self.source,
            sample_index=sample_index,
        )

    def __str__(self) -> str:
        return f"{self.question_id}/e{self.epoch}/{self.view}/{self.source}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class CompletionId:
    """Names one sample from prompt to gradient; its string is the key in logs, samples and seeds."""

    question_id: str
    epoch: int
    view: View
    source: Source
    sample_index: int

    @property
    def group(self) -> GroupId:
        return GroupId(question_id=self.question_id, epoch=self.epoch, view=self.view, source=self.source)

    def __str__(self) -> str:
        return f"{self.question_id}/e{self.epoch}/{self.view}/{self.source}/{self.sample_index}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Version:
    """Weights after `updates` optimizer updates of one `incarnation`; a restore from a checkpoint opens a new incarnation."""

    incarnation: int
    updates: int

    def __str__(self) -> str:
        return f"{self.incarnation}.{self.updates}"
