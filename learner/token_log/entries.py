"""What the token log says, and its files. Imports no torch.

    tokens/recorded/rank-0/segment-000001.cwj      written by the ranks of the run
    tokens/recomputed/rank-0/segment-000001.cwj    written by the ranks of a replay

The segments are those of the journal (learner/replay/journal/segments.py). A frame is one question of one update, as far as this rank
trained it; a question whose completions lie on several ranks has a frame in the folder of each.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corewarding.dataflow.carriers import Completion, Float32, TrainingSample
from corewarding.dataflow.codec import CodecError, decode_as, encode
from corewarding.dataflow.ids import AskedId, CompletionId
from corewarding.learner.replay.journal.segments import JournalError, read, segments

IN_LOSS, IN_GAIN, IN_KL, OFF_BAND, VETOED, SEQUENCE_OFF_BAND, CLIPPED = (1 << bit for bit in range(7))
"""Bits of `marks`: in the batch's loss mask; what the correction left in gain and KL term; why it took the token out (outside
of correction.token_band; its completion vetoed, or outside of correction.sequence_band); clipped, so without gradient in the gain."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenValues:
    """One completion in one update. [L] each; NaN where the loss mask leaves a token out, but for `policy`."""

    policy: Float32  # log pi under the weights that the update began with
    proximal: Float32  # log old
    ratio: Float32  # importance ratio, old / mu
    weight: Float32  # what truncation, or the band of tokens, made of it
    marks: NDArray[np.uint8]


_VALUES = tuple(field.name for field in fields(TokenValues))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenEntry:
    """One question of one update, as far as one rank trained it."""

    update: int
    asked: AskedId
    values: Mapping[CompletionId, TokenValues]
    checksums: Mapping[
        CompletionId, int
    ]  # of the completions: a run that is resumed may sample others under the same names


def checksum(one: Completion | TrainingSample) -> int:
    """Of what was sampled."""
    versions = zlib.crc32(one.token_versions.tobytes(), zlib.crc32(one.token_ids.tobytes()))
    return zlib.crc32(one.behavior_logprobs.tobytes(), versions)


def to_bytes(entry: TokenEntry) -> bytes:
    """The payload of a frame."""
    rows = [
        [one, entry.checksums[one], *(getattr(values, name) for name in _VALUES)]
        for one, values in entry.values.items()
    ]
    return encode([entry.update, entry.asked, rows])


def from_bytes(payload: bytes) -> TokenEntry:
    """The entry of a payload. JournalError if it holds something else."""
    try:
        update, asked, rows = decode_as(payload, list)
        values, checksums = {}, {}
        for one, number, *arrays in rows:
            values[one] = _values(arrays)
            checksums[one] = number
        if not (isinstance(update, int) and isinstance(asked, AskedId)) or any(
            one.group.asked != asked for one in values
        ):
            raise CodecError("it names no question of an update")
        return TokenEntry(update=update, asked=asked, values=values, checksums=checksums)
    except (CodecError, ValueError, TypeError, AttributeError) as error:
        raise JournalError(f"the token log holds an entry that cannot be read: {error}") from error


def _values(arrays: list[NDArray[Any]]) -> TokenValues:
    values = TokenValues(**dict(zip(_VALUES, arrays, strict=True)))
    if {array.dtype.str for array in arrays[:-1]} != {"<f4"} or values.marks.dtype != np.uint8:
        raise CodecError("its arrays are of other types")
    if len({array.shape for array in arrays}) != 1 or values.marks.ndim != 1:
        raise CodecError("its arrays are ragged")
    return values


def recorded(tokens: Path) -> Path:
    """Where the ranks of the run write. tokens: the folder of the token log."""
    return tokens / "recorded"


def recomputed(tokens: Path) -> Path:
    """Where the ranks of a replay write."""
    return tokens / "recomputed"


def folders(tokens: Path) -> list[Path]:
    """The folders with segments: those of a replay first, so that what the run itself wrote is read last."""
    return [folder for place in (recomputed(tokens), recorded(tokens)) for folder in sorted(place.glob("rank-*"))]


def forget_before(tokens: Path, update: int) -> None:
    """Removes the segments in which every update is before `update`, as those that follow show."""
    for folder in folders(tokens):
        found = segments(folder)
        for segment, following in itertools.pairwise(found):
            try:
                first = next((from_bytes(payload).update for _, payload in read(following, torn=[])), None)
            except JournalError:  # the viewer names the damage
                break
            if first is None or first > update:
                break
            segment.unlink()
