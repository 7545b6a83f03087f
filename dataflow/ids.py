"""Names of an asked question, a group, a completion, and a version of the weights: keys in logs, samples, seeds and messages."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

View = Literal["original", "rephrased"]
Source = Literal["policy", "teacher"]
Channel = Literal["policy", "teacher"]
SetName = Literal["policy", "teacher", "initial"]
"""A set of weights that the learner holds; `initial` is the model that the run started from."""

VIEWS: tuple[View, ...] = ("original", "rephrased")
SOURCES: tuple[Source, ...] = ("policy", "teacher")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class AskedId:
    """One asking of a question, the unit of admission, deadlines, eviction and drops."""

    question_id: str
    epoch: int

    def group(self, view: View, source: Source) -> GroupId:
        """The name of one of its groups."""
        return GroupId(asked=self, view=view, source=source)

    def __str__(self) -> str:
        return f"{self.question_id}/e{self.epoch}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class GroupId:
    """The G completions of one (question, epoch, view, source)."""

    asked: AskedId
    view: View
    source: Source

    @property
    def question_id(self) -> str:
        return self.asked.question_id

    @property
    def epoch(self) -> int:
        return self.asked.epoch

    def completion(self, sample_index: int) -> CompletionId:
        """The name of one of its completions."""
        return CompletionId(group=self, sample_index=sample_index)

    def __str__(self) -> str:
        return f"{self.asked}/{self.view}/{self.source}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class CompletionId:
    """Names one completion from prompt to gradient. Its string is the key in logs, samples and seeds."""

    group: GroupId
    sample_index: int

    @property
    def question_id(self) -> str:
        return self.group.asked.question_id

    @property
    def epoch(self) -> int:
        return self.group.asked.epoch

    @property
    def view(self) -> View:
        return self.group.view

    @property
    def source(self) -> Source:
        return self.group.source

    def __str__(self) -> str:
        return f"{self.group}/{self.sample_index}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Version:
    """Weights after `updates` optimizer updates of one `incarnation`. Resuming from a checkpoint opens a new incarnation."""

    incarnation: int
    updates: int

    def __str__(self) -> str:
        return f"{self.incarnation}.{self.updates}"


def drawn(asked: Iterable[AskedId], *, update: int, num: int) -> frozenset[AskedId]:
    """At most `num` of these askings, by checksums of update and name. What is drawn from all of them is drawn from any part that
    holds it, too."""
    return frozenset(sorted(asked, key=lambda one: (zlib.crc32(f"{update} {one}".encode()), one))[:num])
