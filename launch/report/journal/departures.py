"""What a journal says of one completion, and of one question that left the replay buffer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from corewarding.dataflow.ids import AskedId, CompletionId, GroupId
from corewarding.learner.replay.events import DropReason

Fate = Literal["trained", "voted", "withheld", "dropped", "waiting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """A completion without its tokens."""

    id: CompletionId
    number: int  # completions that had arrived with its group
    versions: tuple[int, int]  # updates in the weights of its first and its last token
    num_tokens: int
    tokens: bytes  # digest of the token ids
    swaps: tuple[tuple[int, int], ...]  # (first token, updates in the weights that wrote it and the next ones)
    answer: str | None
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A completion, and what became of it."""

    completion: Sampled
    fate: Fate
    reason: DropReason | None = None
    update: int | None = None
    label: str | None = None  # of its group
    reward: float | None = None
    advantage: float | None = None
    made_again: bool = False  # a later start began from a moment before this, so it does not count


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """A question that left the buffer with its completions, or a group that was refused."""

    asked: AskedId
    fate: Fate
    left: tuple[Left, ...]
    reason: DropReason | None = None
    update: int | None = None
    complete_for: int | None = (
        None  # the first update that was taken after its last group had arrived, if it was trained
    )
    is_refused: bool = False  # a group was; its question stays or had left before
    made_again: bool = False


Groups: TypeAlias = dict[GroupId, tuple[Sampled, ...]]
