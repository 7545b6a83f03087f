"""Writes the token log of one rank.

The values are what the update computes anyway: they are picked out on the device, copied to the host once per update, and written
when the weights have moved. The update has the same bits with and without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from corewarding.dataflow.carriers import TrainBatch, TrainingSample
from corewarding.dataflow.ids import AskedId, CompletionId, drawn
from corewarding.learner.objective.loss import Objective, TokenBatch
from corewarding.learner.objective.packing import MicroBatch
from corewarding.learner.replay.journal.segments import SegmentWriter, flush_all
from corewarding.learner.settings import LearnerPlan
from corewarding.learner.token_log.entries import (
    CLIPPED,
    IN_GAIN,
    IN_KL,
    IN_LOSS,
    OFF_BAND,
    SEQUENCE_OFF_BAND,
    VETOED,
    TokenEntry,
    TokenValues,
    checksum,
    to_bytes,
)
from corewarding.learner.token_log.plan import TokenLogPlan

SEGMENT_BYTES = 16 * 2**20
"""Small, because segments are removed as wholes (journal.retain)."""


class Watched:
    """The tokens of one update that are noted, and what the passes say of them."""

    def __init__(
        self, update: int, samples: Sequence[TrainingSample], micros: Sequence[MicroBatch], device: torch.device
    ) -> None:
        """samples: those of the noted questions."""
        self.update, self._samples = update, {sample.id: sample for sample in samples}
        self._ids: list[CompletionId] = []
        self._places: list[Tensor | None] = []
        self._seen: list[tuple[Tensor, Tensor]] = []
        for micro in micros:
            at, begin = [], 0
            for one, length in zip(micro.ids, micro.lengths, strict=True):
                if one in self._samples:
                    self._ids.append(one)
                    at.append(np.arange(begin, begin + length))
                begin += length
            self._places.append(torch.from_numpy(np.concatenate(at)).to(device) if at else None)

    def see(self, index: int, step: Objective, tokens: TokenBatch, policy_T: Tensor, plan: LearnerPlan) -> None:
        """The pass over micro-batch `index` was made. Waits for nothing on the device."""
        if (at := self._places[index]) is None:
            return
        correction, loss = step.correction, plan.loss

        def noted(values_T: Tensor) -> Tensor:
            return values_T.detach().index_select(0, at)

        in_loss = noted(tokens.mask_T)
        ratio, advantage, sequence = noted(step.ratio_T), noted(tokens.advantage_T), noted(tokens.sequence_T)
        clipped = ((ratio > 1 + loss.eps_high) & (advantage > 0)) | ((ratio < 1 - loss.eps_low) & (advantage < 0))
        bits = {
            IN_LOSS: in_loss,
            IN_GAIN: noted(correction.keep_gain_T),
            IN_KL: noted(correction.keep_kl_T),
            OFF_BAND: noted(correction.off_band_T),
            VETOED: in_loss & correction.vetoed_S[sequence],
            SEQUENCE_OFF_BAND: in_loss & correction.off_band_S[sequence],
            CLIPPED: in_loss & clipped,
        }
        marks = torch.stack([is_set.to(torch.uint8) * bit for bit, is_set in bits.items()]).sum(0, dtype=torch.uint8)
        corrected = [noted(values) for values in (correction.proximal_T, correction.rho_T, correction.weight_T)]
        shown = [torch.where(in_loss, values, torch.nan) for values in corrected]
        self._seen.append((torch.stack([noted(policy_T), *shown]).float(), marks))

    def entries(self) -> list[TokenEntry]:
        """One for each question that this rank has tokens of."""
        if not self._seen:
            return []
        values = torch.cat([values for values, _ in self._seen], dim=1).cpu().numpy()
        marks = torch.cat([marks for _, marks in self._seen]).cpu().numpy()
        found: dict[AskedId, dict[CompletionId, TokenValues]] = {}
        begin = 0
        for one in self._ids:
            here = slice(begin, begin := begin + len(self._samples[one].token_ids))
            policy, proximal, ratio, weight = values[:, here]
            found.setdefault(one.group.asked, {})[one] = TokenValues(
                policy=policy, proximal=proximal, ratio=ratio, weight=weight, marks=marks[here]
            )
        return [
            TokenEntry(
                update=self.update,
                asked=asked,
                values=dict(sorted(ones.items())),
                checksums={one: checksum(self._samples[one]) for one in ones},
            )
            for asked, ones in sorted(found.items())
        ]


class TokenLog:
    """The files of one rank. JournalWriteError if the disk does not take them."""

    def __init__(self, plan: TokenLogPlan, *, rank: int, device: torch.device) -> None:
        self._plan, self._device = plan, device
        self._folder = Path(plan.folder) / f"rank-{rank}"
        self._writer: SegmentWriter | None = None
        self._unflushed: list[int] = []

    def watch(self, batch: TrainBatch, micros: Sequence[MicroBatch]) -> Watched | None:
        """What this update shall note of these micro-batches, which are all of this rank's; None for nothing."""
        plan = self._plan
        if not plan.first <= batch.update <= (plan.last or batch.update):
            return None
        asked = {sample.id.group.asked for sample in batch.samples}
        chosen = asked if plan.questions is None else drawn(asked, update=batch.update, num=plan.questions)
        samples = [sample for sample in batch.samples if sample.id.group.asked in chosen]
        return Watched(batch.update, samples, micros, self._device)

    def write(self, watched: Watched) -> None:
        """The entries are in the hands of the operating system when this returns."""
        for entry in watched.entries():
            if self._writer is None:
                self._writer = SegmentWriter(self._folder, segment_bytes=SEGMENT_BYTES)
            self._writer.append(to_bytes(entry))

    def stage(self) -> None:
        """All that was written so far is to be on the disk after the next `flush`."""
        if self._writer is not None:
            self._unflushed += self._writer.unflushed()

    def flush(self) -> None:
        """Returns when what was staged is on the disk. Another thread may write meanwhile."""
        taken, self._unflushed = self._unflushed, []
        if taken:
            flush_all(taken, self._folder)
