"""Samples to micro-batches: the only place that knows how prompt and completion lie in a row.

A row holds whole sequences one after the other; positions restart at 0 with each, which makes attention block-diagonal.
Trailing padding continues the last sequence's positions, so a row of one sequence is plainly causal. The logits at position
P + t - 1 of a sequence predict its completion token t. Packing is a pure function of the batch: samples are placed longest
first, ties by id. Every rank gets the same number of micro-batches (the last may hold no loss token), because FSDP's
collectives must match.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dataflow.types import CompletionId, TrainingSample, View
from learner.loss import TokenBatch

ROW_MULTIPLE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """R rows of C tokens, and the T completion tokens in them."""

    input_ids: Tensor  # [R, C] int64
    position_ids: Tensor  # [R, C] int64
    predict_T: Tensor  # [T] int64: flat index of the position whose logits predict the token
    target_T: Tensor  # [T] int64
    temperature_T: Tensor  # [T] float32
    tokens: TokenBatch
    ids: tuple[CompletionId, ...]  # [S], in the order of tokens.sequence_T

    def to(self, device: torch.device) -> MicroBatch:
        """The same micro-batch on `device`."""
        tokens = {f.name: getattr(self.tokens, f.name) for f in fields(self.tokens)}
        moved = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in tokens.items()}
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "tokens"}
        own = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in own.items()}
        return MicroBatch(tokens=TokenBatch(**moved), **own)


def pack(
    samples: Sequence[TrainingSample],
    *,
    micro_batch_tokens: int,
    row_tokens: int,
    ranks: int = 1,
    policy_version: int = 0,
    aggregation: Literal["token_mean", "sequence_mean"] = "token_mean",
) -> list[list[MicroBatch]]:
    """[ranks][micro-batches]. row_tokens 0: rows as long as the longest sample. A sample longer than a row gets a row of
    its own length; a row longer than the budget makes a micro-batch of its own."""
    weights = _view_weights(samples, aggregation)
    longest = max((sample.num_tokens for sample in samples), default=ROW_MULTIPLE)
    row_length = -(-max(row_tokens or longest, longest) // ROW_MULTIPLE) * ROW_MULTIPLE
    rows = _fill_rows(samples, row_length)
    per_batch = max(1, micro_batch_tokens // row_length)
    num = max(1, -(-len(rows) // (per_batch * ranks)))  # micro-batches of each rank
    per_batch = -(-len(rows) // (num * ranks)) if rows else 1
    cut = [rows[start : start + per_batch] for start in range(0, len(rows), per_batch)]
    cut += [[] for _ in range(num * ranks - len(cut))]
    return [
        [_micro_batch(cut[k * ranks + rank], row_length, weights, policy_version) for k in range(num)]
        for rank in range(ranks)
    ]


def _view_weights(samples: Sequence[TrainingSample], aggregation: str) -> dict[View, float]:
    """1 / N_view over the whole update, before any rejection: tokens, or completions that have a loss token."""
    counts: dict[View, int] = {}
    for sample in samples:
        tokens = int(sample.loss_mask.sum())
        counts[sample.id.view] = counts.get(sample.id.view, 0) + (tokens if aggregation == "token_mean" else tokens > 0)
    sign = 1.0 if aggregation == "token_mean" else -1.0  # negative: still to be divided by the completion's own length
    return {view: sign / count for view, count in counts.items() if count}


def _fill_rows(samples: Sequence[TrainingSample], row_length: int) -> list[list[TrainingSample]]:
    """First fit, longest first."""
    rows: list[list[TrainingSample]] = []
    free: list[int] = []
    for sample in sorted(samples, key=lambda s: (-s.num_tokens, s.id)):
        place = next((i for i, room in enumerate(free) if room >= sample.num_tokens), None)
        if place is None:
            rows.append([])
            free.append(row_length)
            place = len(rows) - 1
        rows[place].append(sample)
        free[place] -= sample.num_tokens
    return rows


def _micro_batch(
    rows: list[list[TrainingSample]], row_length: int, weights: dict[View, float], policy_version: int
) -> MicroBatch:
    shape = (max(1, len(rows)), row_length if rows else ROW_MULTIPLE)
    input_ids = np.zeros(shape, np.int64)
    position_ids = np.tile(np.arange(shape[1], dtype=np.int64), (shape[0], 1))
    placed: list[tuple[int, TrainingSample]] = []  # flat start, sample
    for row, members in enumerate(rows):
        start = 0
        for sample in members:
            end = start + sample.num_tokens
            input_ids[row, start:end] = np.concatenate([sample.prompt_token_ids, sample.token_ids])
            position_ids[row, start:] = np.arange(shape[1] - start)
            placed.append((row * shape[1] + start, sample))
            start = end
    samples = [sample for _, sample in placed]
    lengths = [len(sample.token_ids) for sample in samples]

    def per_token(values: list[float]) -> Tensor:
        return torch.from_numpy(np.repeat(np.array(values, np.float32), lengths))

    def joined(arrays: list[np.ndarray], dtype: type) -> Tensor:
        return torch.from_numpy(np.concatenate([*arrays, np.empty(0, dtype)]).astype(dtype))

    predict = [start + len(s.prompt_token_ids) - 1 + np.arange(len(s.token_ids)) for start, s in placed]
    tokens = TokenBatch(
        behavior_T=joined([s.behavior_logprobs for s in samples], np.float32),
        advantage_T=per_token([s.advantage for s in samples]),
        mask_T=joined([s.loss_mask for s in samples], np.bool_),
        weight_T=per_token([_token_weight(s, weights) for s in samples]),
        age_T=joined([policy_version - s.token_versions for s in samples], np.float32),
        sequence_T=torch.from_numpy(np.repeat(np.arange(len(samples)), lengths)),
        num_sequences=len(samples),
    )
    return MicroBatch(
        input_ids=torch.from_numpy(input_ids),
        position_ids=torch.from_numpy(position_ids),
        predict_T=joined(predict, np.int64),
        target_T=joined([s.token_ids for s in samples], np.int64),
        temperature_T=per_token([s.temperature for s in samples]),
        tokens=tokens,
        ids=tuple(s.id for s in samples),
    )


def _token_weight(sample: TrainingSample, weights: dict[View, float]) -> float:
    weight = weights.get(sample.id.view, 0.0)
    return weight if weight >= 0 else -weight / max(1, int(sample.loss_mask.sum()))
