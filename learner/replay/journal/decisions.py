"""What the buffer decided, as records."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from corewarding.dataflow.carriers import TrainBatch
from corewarding.dataflow.codec import encode
from corewarding.learner.replay.events import Event, GroupRefused, QuestionEvicted, UpdateScored
from corewarding.learner.replay.journal.records import Evicted, Record, Refused, Scored


def decision(event: Event, encoded: Callable[[TrainBatch], bytes] = encode) -> Record | None:
    """The record of an event; None if the input itself says it. encoded: gives the bytes of a batch."""
    match event:
        case GroupRefused(reason=reason):
            return Refused(reason=reason)
        case QuestionEvicted(asked=asked, reason=stale):
            return Evicted(asked=asked, reason=stale)
        case UpdateScored():
            return _scored(event, encoded(event.batch))
    return None


def _scored(event: UpdateScored, encoded: bytes) -> Scored:
    samples, groups = event.batch.samples, event.groups
    return Scored(
        update=event.update,
        incarnation=event.batch.incarnation,
        samples=tuple(sample.id for sample in samples),
        advantages=np.array([sample.advantage for sample in samples], np.float64),
        weights=np.array([sample.weight for sample in samples], np.float64),
        in_loss=np.array([bool(sample.loss_mask[0]) for sample in samples], np.bool_),
        sha256=hashlib.sha256(encoded).hexdigest(),
        groups=tuple(group.id for group in groups),
        labels=tuple(group.label for group in groups),
        abstained=np.array([group.abstained for group in groups], np.bool_),
        sizes=np.array([len(group.rewards) for group in groups], np.int32),
        rewards=np.concatenate([np.empty(0), *(group.rewards for group in groups)]).astype(np.float64),
    )


def sha256_of(batch: TrainBatch) -> str:
    """Of the encoded batch."""
    return hashlib.sha256(encode(batch)).hexdigest()


def is_batch(batch: TrainBatch, sha256: str) -> bool:
    """Whether a journal names this batch by `sha256`, also one of a version that encoded each sample by itself."""
    return sha256_of(batch) == sha256 or hashlib.sha256(encode(batch, columns=False)).hexdigest() == sha256
