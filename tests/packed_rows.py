"""Packed rows by their lengths, and the mask that attention over them stands for."""

from collections.abc import Sequence

import torch
from torch import Tensor

from corewarding.learner.attention import QUERY_BLOCK
from corewarding.learner.objective.packing import MicroBatch

Rows = Sequence[Sequence[tuple[int, Sequence[int]]]]
ROWS: dict[str, Rows] = {
    "one sequence": [[(5, [7])]],
    "a group": [[(9, [3, 1, 12, 3])]],
    "no completion in the row": [[(4, [0]), (3, [0, 2])]],
    "two rows": [[(6, [5, 5]), (1, [20])], [(30, [2])]],
    "nothing": [[]],
    "longer than a block": [[(QUERY_BLOCK + 30, [QUERY_BLOCK + 5, 3])]],
}
HEADS, KEY_HEADS, DIM = 4, 2, 16


def mask_of(rows: Rows, length: int, window: int | None) -> Tensor:
    """[R, 1, C, C] built token by token."""
    mask = torch.zeros(len(rows), 1, length, length, dtype=torch.bool)
    for row, trees in enumerate(rows):
        end = 0
        places: list[tuple[int, int, int]] = []  # tree, branch, position of each token
        for tree, (prompt, completions) in enumerate(trees):
            for branch, num in enumerate([prompt, *completions]):
                start = 0 if branch == 0 else prompt
                places += [(tree, branch, start + step) for step in range(num)]
                end += num
        places += [(-1, 0, step) for step in range(length - end)]
        for query, (tree, branch, position) in enumerate(places):
            for key, (other, its_branch, before) in enumerate(places[: query + 1]):
                near = window is None or position - before < window
                mask[row, 0, query, key] = tree == other and its_branch in (0, branch) and near
    return mask


def ids_of(micro: MicroBatch) -> tuple[Tensor, Tensor]:
    """[R, C] which tree of its row a token belongs to (-1: padding), and which part of it: 0 is the prompt."""
    trees, branches = torch.full(micro.input_ids.shape, -1), torch.zeros(micro.input_ids.shape, dtype=torch.long)
    row, tree, branch = -1, -1, 0
    for segment in micro.layout.segments:
        row, tree = segment.row, tree if segment.row == row else -1
        is_completion = segment.prompt_end > segment.prompt_start
        tree, branch = (tree, branch + 1) if is_completion else (tree + 1, 0)
        if is_completion or (micro.input_ids[segment.row, segment.start : segment.end] != 0).any():
            trees[row, segment.start : segment.end] = tree
            branches[row, segment.start : segment.end] = branch
    return trees, branches
