"""Packs samples into micro-batches. No other file knows how prompts and completions lie in a row.

The completions of a question share one copy of its prompt: `prompt, completion, completion, ...`. The positions of
every completion continue from the prompt's end, and a token sees only its prompt and its own completion. So logprobs and gradients
are those of separate sequences, at a fraction of the tokens. A row holds several such trees. The last token of a completion
predicts nothing and is left out. Packing is a pure function of the batch: longest first, ties by id. Every rank gets the
same number of micro-batches (some may be empty), because FSDP's collectives must match. Samples without a gradient have
micro-batches of their own, which need no backward pass.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corewarding.dataflow.carriers import Int32, TrainingSample
from corewarding.dataflow.ids import CompletionId, View
from corewarding.learner.objective.layout import Layout
from corewarding.learner.objective.loss import TokenBatch

ROW_MULTIPLE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """R rows of C tokens, and the T completion tokens in them."""

    input_ids: Tensor  # [R, C] int64
    position_ids: Tensor  # [R, C] int64
    layout: Layout
    predict_T: Tensor  # [T] int64: flat index of the position whose logits predict the token
    target_T: Tensor  # [T] int64
    temperature_T: Tensor  # [T] float32
    tokens: TokenBatch
    ids: tuple[CompletionId, ...]  # [S], in the order of tokens.sequence_T
    lengths: tuple[int, ...]  # [S] tokens of each
    trains: bool  # needs a backward pass

    def to(self, device: torch.device) -> MicroBatch:
        """The same micro-batch on `device`."""

        def moved(carrier: MicroBatch | TokenBatch | Layout) -> dict[str, Any]:
            values = {f.name: getattr(carrier, f.name) for f in fields(carrier)}
            return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in values.items()}

        parts = {"tokens": TokenBatch(**moved(self.tokens)), "layout": Layout(**moved(self.layout))}
        return dataclasses.replace(self, **moved(self) | parts)


@dataclass(frozen=True, slots=True)
class _Tree:
    """A prompt and some of its completions."""

    prompt: Int32
    samples: list[TrainingSample]

    @property
    def lengths(self) -> tuple[int, list[int]]:
        """Tokens of the prompt, and of each completion without its last one."""
        return len(self.prompt), [len(sample.token_ids) - 1 for sample in self.samples]

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + sum(self.lengths[1])


def pack(
    samples: Sequence[TrainingSample],
    *,
    micro_batch_tokens: int,
    row_tokens: int,
    ranks: int = 1,
    policy_version: int = 0,
    aggregation: Literal["token_mean", "sequence_mean"] = "token_mean",
    has_gradient: Callable[[TrainingSample], bool] = lambda sample: True,
) -> list[list[MicroBatch]]:
    """[ranks][micro-batches]. A sample longer than row_tokens gets its own row; a row longer than micro_batch_tokens gets its
    own micro-batch. The first ones train, of which each rank has at least one."""
    weights = _view_weights(samples, aggregation)
    dealt: list[list[MicroBatch]] = [[] for _ in range(ranks)]
    for trains in (True, False):
        some = [sample for sample in samples if has_gradient(sample) == trains]
        if not (some or trains):
            continue
        cut = _balanced(_fill_rows(_trees(some, row_tokens), row_tokens), micro_batch_tokens, ranks)
        for rank, micros in enumerate(dealt):
            micros += [_micro_batch(chunk, weights, policy_version, trains=trains) for chunk in cut[rank::ranks]]
    return dealt


def _view_weights(samples: Sequence[TrainingSample], aggregation: str) -> dict[View, float]:
    """1 / N_view over the whole update, before any rejection: tokens, or completions that have a loss token."""
    counts: dict[View, int] = {}
    for sample in samples:
        tokens = int(sample.loss_mask.sum())
        counts[sample.id.view] = counts.get(sample.id.view, 0) + (tokens if aggregation == "token_mean" else tokens > 0)
    sign = 1.0 if aggregation == "token_mean" else -1.0  # negative: still to be divided by the completion's own length
    return {view: sign / count for view, count in counts.items() if count}


def _trees(samples: Sequence[TrainingSample], row_tokens: int) -> list[_Tree]:
    """One tree per prompt, or several if one would not fit into a row."""
    prompts: dict[bytes, list[TrainingSample]] = {}
    for sample in sorted(samples, key=lambda s: (-s.num_tokens, s.id)):
        prompts.setdefault(sample.prompt_token_ids.tobytes(), []).append(sample)
    trees = []
    for members in prompts.values():
        tree = _Tree(members[0].prompt_token_ids, [])
        for sample in members:
            if tree.samples and tree.num_tokens + len(sample.token_ids) - 1 > row_tokens:
                trees.append(tree)
                tree = _Tree(tree.prompt, [])
            tree.samples.append(sample)
        trees.append(tree)
    return trees


def _fill_rows(trees: list[_Tree], row_tokens: int) -> list[list[_Tree]]:
    """First fit, longest tree first. The rows are returned longest first."""
    rows: list[list[_Tree]] = []
    free: list[int] = []
    for tree in sorted(trees, key=lambda t: (-t.num_tokens, t.samples[0].id)):
        place = next((i for i, room in enumerate(free) if room >= tree.num_tokens), None)
        if place is None:
            rows.append([])
            free.append(row_tokens)
            place = len(rows) - 1
        rows[place].append(tree)
        free[place] -= tree.num_tokens
    return sorted(rows, key=lambda row: -_row_length(row))


def _row_length(row: list[_Tree]) -> int:
    return -(-sum(tree.num_tokens for tree in row) // ROW_MULTIPLE) * ROW_MULTIPLE


def _balanced(rows: list[list[_Tree]], micro_batch_tokens: int, ranks: int) -> list[list[list[_Tree]]]:
    """Cuts consecutive rows into micro-batches of about equal size: as few as the budget allows, and a multiple of `ranks`."""
    lengths = [_row_length(row) for row in rows]
    num = max(1, -(-len(_cut(lengths, micro_batch_tokens)) // ranks)) * ranks
    budgets = range(ROW_MULTIPLE, max([ROW_MULTIPLE, micro_batch_tokens, *lengths]) + 1)
    budget = budgets[bisect_left(budgets, True, key=lambda tokens: len(_cut(lengths, tokens)) <= num)]
    cut = [rows[start:end] for start, end in _cut(lengths, budget)]
    return cut + [[] for _ in range(num - len(cut))]


def _cut(lengths: list[int], budget: int) -> list[tuple[int, int]]:
    """[start, end) of micro-batches; each costs its number of rows times its first, longest row."""
    bounds: list[tuple[int, int]] = []
    start = 0
    for end in range(1, len(lengths) + 1):
        if end == len(lengths) or (end + 1 - start) * lengths[start] > budget:
            bounds.append((start, end))
            start = end
    return bounds


def _micro_batch(
    rows: list[list[_Tree]], weights: dict[View, float], policy_version: int, *, trains: bool
) -> MicroBatch:
    shape = (max(1, len(rows)), max([ROW_MULTIPLE, *map(_row_length, rows)]))
    input_ids = np.zeros(shape, np.int64)
    position_ids = np.zeros(shape, np.int64)
    placed: list[tuple[NDArray[np.int64], TrainingSample]] = []  # flat positions that predict the sample's tokens
    for row, trees in enumerate(rows):
        end = 0
        for tree in trees:
            begin, num_prompt = end, len(tree.prompt)
            root = row * shape[1] + begin + num_prompt - 1
            parts = [tree.prompt, *(sample.token_ids[:-1] for sample in tree.samples)]
            for branch, part in enumerate(parts):
                start, end = end, end + len(part)
                input_ids[row, start:end] = part
                position_ids[row, start:end] = np.arange(len(part)) + (num_prompt if branch else 0)
                if branch:
                    own = row * shape[1] + np.arange(start, end)
                    placed.append((np.concatenate([[root], own]), tree.samples[branch - 1]))
    samples = [sample for _, sample in placed]
    lengths = [len(sample.token_ids) for sample in samples]

    def per_token(values: list[float]) -> Tensor:
        return torch.from_numpy(np.repeat(np.array(values, np.float32), lengths))

    def joined(arrays: list[np.ndarray], dtype: type) -> Tensor:
        return torch.from_numpy(np.concatenate([*arrays, np.empty(0, dtype)]).astype(dtype))

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
        layout=Layout.of([[tree.lengths for tree in trees] for trees in rows] or [[]], shape[1]),
        predict_T=joined([positions for positions, _ in placed], np.int64),
        target_T=joined([s.token_ids for s in samples], np.int64),
        temperature_T=per_token([s.temperature for s in samples]),
        tokens=tokens,
        ids=tuple(s.id for s in samples),
        lengths=tuple(lengths),
        trains=trains,
    )


def _token_weight(sample: TrainingSample, weights: dict[View, float]) -> float:
    weight = weights.get(sample.id.view, 0.0)
    mean = weight if weight >= 0 else -weight / max(1, int(sample.loss_mask.sum()))
    return sample.weight * mean
