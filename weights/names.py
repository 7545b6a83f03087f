"""The names of weights: those of the checkpoint are used on the wire and in exports, whatever transformers does in memory.

transformers fuses the experts of a mixture into one parameter and renames some others. A part is one tensor of the checkpoint and its
place in a parameter. Every part is contiguous there, so it can be sent, written and loaded as a view.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from corewarding.dataflow.errors import UserError

_LAST = 2  # length of a tag's last axis; conversions cut and stack the other axes only


class WeightNamesError(UserError):
    """A checkpoint stores a weight in another order than transformers keeps it in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One tensor of the checkpoint: the elements [start, start + size) of a flattened parameter."""

    name: str
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def of(self, parameter: Tensor) -> Tensor:
        """This part of a whole, contiguous parameter: a view with the checkpoint's shape."""
        return parameter.view(-1)[self.start : self.start + self.size].view(self.shape)


def parts_of(model: Any, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, tuple[Part, ...]]:
    """The checkpoint's tensors in each parameter, by the parameter's name in memory; tied parameters appear once.

    model: a transformers model on any device, also meta. shapes: by name, of the parameters that it was made with, if its modules have
    been wrapped since. WeightNamesError if a tensor of the checkpoint is not a contiguous part of
    one parameter. Every element of a small stand-in of each parameter is numbered, and transformers' own conversion for saving cuts
    the stand-ins; the numbers then tell where each tensor lies.
    """
    shapes = shapes or {name: tuple(p.shape) for name, p in model.named_parameters()}
    names = list(shapes)
    bounds = list(itertools.accumulate((math.prod(_small(shape)) for shape in shapes.values()), initial=0))
    tags = {
        name: torch.arange(first, end).view(_small(shapes[name]))
        for name, (first, end) in zip(names, itertools.pairwise(bounds), strict=True)
    }
    parts: dict[str, list[Part]] = {name: [] for name in names}
    for stored, tag in revert_weight_conversion(model, tags).items():
        first = int(tag.reshape(-1)[0])
        owner = bisect_right(bounds, first) - 1
        name = names[owner]
        whole = torch.equal(tag.reshape(-1), torch.arange(first, first + tag.numel()))
        if not whole or first + tag.numel() > bounds[owner + 1]:
            raise WeightNamesError(
                f"{stored}: the checkpoint stores it in another order than {name} has in memory, so it cannot be sent or saved"
            )
        parts[name].append(_part(stored, tuple(tag.shape), first - bounds[owner], shapes[name]))
    for name, found in parts.items():
        found.sort(key=lambda part: part.start)
        if sum(part.size for part in found) != math.prod(shapes[name]):
            raise WeightNamesError(
                f"{name}: the checkpoint's tensors {[part.name for part in found]} are only part of it"
            )
    return {name: tuple(found) for name, found in parts.items()}


def stored_views(parts: Mapping[str, tuple[Part, ...]], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the checkpoint's names, as views of whole `parameters`, which are given by their names in memory."""
    return {part.name: part.of(parameters[name].detach()) for name, found in parts.items() for part in found}


def _small(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a parameter's stand-in."""
    return (*shape[:-1], _LAST) if len(shape) > 1 else shape


def _part(stored: str, tag: tuple[int, ...], offset: int, shape: tuple[int, ...]) -> Part:
    """tag: the shape of the stored tensor's stand-in; offset: of its first element; shape: of the parameter."""
    if len(shape) == 1:
        return Part(name=stored, shape=tag, start=offset)
    if tag[-1] != _LAST:
        raise WeightNamesError(f"{stored}: the checkpoint cuts the last axis of a parameter of shape {shape}")
    return Part(name=stored, shape=(*tag[:-1], shape[-1]), start=offset // _LAST * shape[-1])
