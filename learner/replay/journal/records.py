"""What a journal says: one dataclass per kind of record, in the codec of all messages. An input and what was decided upon it are
written as one frame, so a journal holds both or neither.

Inputs (what the buffer was told, in order) rebuild its state: Start, Snapshot and Held, Initial, Admitted, Acknowledged, Arrived,
GivenUp, Taken, Statistics, Reported. Decisions and facts tell what came of them: Refused, Evicted, Scored, Updated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from corewarding.dataflow.codec import CodecError, decode_as, encode
from corewarding.dataflow.errors import DataError
from corewarding.dataflow.ids import AskedId, Channel, CompletionId, GroupId
from corewarding.dataflow.wire.field_types import FieldTypeError, checks_of, refuse_other_types
from corewarding.learner.replay.admission import StaleReason
from corewarding.learner.replay.events import RefusalReason
from corewarding.learner.replay.journal.segments import JournalError

Float64 = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The run was started, or resumed. Repeated before every snapshot of this start."""

    start: str  # names this start; a buffer that comes back within it finds its own
    goes_on: (
        bool  # with all that the journal held; False: with a checkpoint's state, so that later updates are made again
    )
    incarnation: int
    updates: int  # in the weights at the start
    time_s: float  # seconds since the epoch
    config: str  # YAML, secrets masked
    setting: dict[str, Any]  # packages, ranks, threads: what decides whether weights can be rebuilt bit by bit


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """The whole state of the buffer between two updates; `num_held` records Held follow. What was before is not needed any more."""

    state: dict[str, Any]
    num_held: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A group that had arrived before the snapshot and had not left."""

    completions: bytes  # an encoded list of Completion


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Initial:
    """The initial model's answers."""

    answers: bytes  # an encoded list of InitialAnswers


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Questions that may be sampled."""

    call: int  # number of the call, which may be repeated
    asked: tuple[AskedId, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """Every live engine of `channel` has the weights after `updates` updates."""

    channel: Channel
    updates: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A group of completions."""

    completions: bytes  # an encoded list of Completion, as it came


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GivenUp:
    """A task of this question fails wherever it runs."""

    asked: AskedId


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """These questions make update number `update`."""

    update: int
    asked: tuple[AskedId, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The learner's token statistics of the questions taken for `update`."""

    update: int
    statistics: bytes  # an encoded list of TokenStatistics


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """The report of `update` was given to the driver."""

    update: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The group that arrived last was not taken in."""

    reason: RefusalReason


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Evicted:
    """A ready question passed a deadline."""

    asked: AskedId
    reason: StaleReason


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """The batch of `update`, exactly: with the completions that arrived it gives the TrainBatch again. And the scores that it is
    made of. N samples, K trained groups of G completions."""

    update: int
    incarnation: int
    samples: tuple[CompletionId, ...]  # [N] sorted
    advantages: Float64  # [N]
    weights: Float64  # [N]
    in_loss: NDArray[np.bool_]  # [N] False: withheld
    sha256: str  # of the encoded TrainBatch
    groups: tuple[GroupId, ...]  # [K]
    labels: tuple[str | None, ...]  # [K]
    abstained: NDArray[np.bool_]  # [K]
    sizes: NDArray[np.int32]  # [K] completions
    rewards: Float64  # [sum of sizes] one group after the other

    def __post_init__(self) -> None:
        n, k = len(self.samples), len(self.groups)
        lengths = {"advantages": n, "weights": n, "in_loss": n, "labels": k, "abstained": k, "sizes": k}
        for name, length in lengths.items():
            values = getattr(self, name)
            if (values.shape if isinstance(values, np.ndarray) else (len(values),)) != (length,):
                raise DataError(f"the record of update {self.update}: {name} has not {length} items")
        kinds = {"advantages": "f", "weights": "f", "in_loss": "b", "abstained": "b", "sizes": "i", "rewards": "f"}
        if any(getattr(self, name).dtype.kind != kind for name, kind in kinds.items()) or self.rewards.ndim != 1:
            raise DataError(f"the record of update {self.update}: its arrays are of other types")
        if (self.sizes < 0).any() or self.sizes.sum() != len(self.rewards):
            raise DataError(f"the record of update {self.update}: the sizes of its groups do not fit its rewards")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Updated:
    """The learner made `update`; `digest` is that of its weights after it, the teacher's included."""

    update: int
    digest: str


Record: TypeAlias = (
    Start
    | Snapshot
    | Held
    | Initial
    | Admitted
    | Acknowledged
    | Arrived
    | GivenUp
    | Taken
    | Statistics
    | Reported
    | Refused
    | Evicted
    | Scored
    | Updated
)
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in Record.__args__}
_CHECKS = {name: checks_of(kind) for name, kind in _KINDS.items()}
_FIELDS = {name: tuple(field.name for field in dataclasses.fields(kind)) for name, kind in _KINDS.items()}


def to_bytes(entry: Sequence[Record]) -> bytes:
    """Records that belong together, as the payload of one frame."""
    return encode(
        [
            [type(record).__name__, *(getattr(record, name) for name in _FIELDS[type(record).__name__])]
            for record in entry
        ]
    )


def from_bytes(payload: bytes) -> list[Record]:
    """The records of a payload. JournalError if it holds something else."""
    try:
        return [_record(one) for one in decode_as(payload, list)]
    except (CodecError, FieldTypeError, DataError) as error:
        raise JournalError(f"the journal holds a record that cannot be read: {error}") from error


def _record(message: object) -> Record:
    name = message[0] if isinstance(message, list) and message else None
    if not isinstance(message, list) or not isinstance(name, str) or name not in _KINDS:
        raise CodecError(f"no kind of record that this version knows: {str(name)[:40]!r}")
    if len(message) != 1 + len(_FIELDS[name]):
        raise CodecError(f"{name} with {len(message) - 1} fields")
    values = dict(zip(_FIELDS[name], message[1:], strict=True))
    refuse_other_types(_KINDS[name], _CHECKS[name], values)
    record: Record = _KINDS[name](**values)
    return record
