"""What a rank keeps in the host's memory, and how it is used: streamed over the device, chunk by chunk, or copied in as a whole.

Invariant: the numbers are those of a rank that keeps everything on its device, bit for bit, because the same kernels compute them
there. On the CPU the same copies are made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from corewarding.learner.device import host_like, streamed_elements
from corewarding.learner.model import local_shard
from corewarding.weights.stream import Shard

MEANS = ("exp_avg", "exp_avg_sq")
"""AdamW's running means of the gradient and of its square, by their names in torch's optimizer."""
_CUT = 16
"""A tensor is cut at multiples of so many elements, and lies at one in a chunk: aligned for the kernels of CPU and GPU."""
_READ = 2**22
"""Elements that are read on the device at one time where they are sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A range of one tensor's elements in a chunk."""

    index: int  # of the tensor
    start: int
    count: int
    offset: int  # of its first element in the chunk

    def of(self, flat: Tensor) -> Tensor:
        """[count] these elements of the flat tensor."""
        return flat[self.start : self.start + self.count]


Work = Callable[[list[Piece], list[list[Tensor]]], None]
"""Changes what a chunk holds. Gets its pieces, and for each streamed list the pieces' elements, flat on the device."""


def cut(sizes: Sequence[int], chunk: int | None) -> list[list[Piece]]:
    """The pieces of each chunk, of tensors with so many elements. chunk: elements, a multiple of 16; None: each tensor is one."""
    chunks: list[list[Piece]] = []
    used = chunk or 0  # of the last chunk; there is none yet
    for index, size in enumerate(sizes):
        start = 0
        while start < size:
            if chunk is None or used == chunk:
                chunks.append([])
                used = 0
            count = size - start if chunk is None else min(size - start, chunk - used)
            chunks[-1].append(Piece(index=index, start=start, count=count, offset=used))
            start, used = start + count, used + _rounded_up(count)
    return chunks


@torch.no_grad()
def stream(kept: Sequence[Sequence[Tensor]], device: torch.device, work: Work, *, chunk: int | None = None) -> None:
    """Brings the tensors of the host to the device chunk by chunk, lets `work` change them there, and takes them back.

    kept: lists of float32 tensors, whose sizes are the same in each list. Returns when everything is back. chunk: see `cut`; None: as
    suits the device.
    """
    flat = [[one.view(-1) for one in tensors] for tensors in kept]
    chunks = cut([len(one) for one in flat[0]], chunk or streamed_elements(device))
    if not chunks:
        return
    slots = [torch.empty(len(flat), _longest(chunks[turn::2]), device=device) for turn in range(min(2, len(chunks)))]
    if device.type == "cuda":
        _overlapped(flat, slots, chunks, work)
        return
    for turn, pieces in enumerate(chunks):
        brought = _views(slots[turn % 2], pieces)
        _arrive(flat, pieces, brought)
        work(pieces, brought)
        _leave(flat, pieces, brought)


def _overlapped(flat: list[list[Tensor]], slots: list[Tensor], chunks: list[list[Piece]], work: Work) -> None:
    """While one chunk is changed, the next one arrives in the other slot, and the one before leaves."""
    device = slots[0].device
    here = torch.cuda.current_stream(device)
    arriving, leaving = torch.cuda.Stream(device), torch.cuda.Stream(device)
    arriving.wait_stream(here)  # what used the slots' memory before
    left: list[torch.cuda.Event] = []
    for turn, pieces in enumerate(chunks):
        brought = _views(slots[turn % 2], pieces)
        with torch.cuda.stream(arriving):
            if turn >= 2:
                arriving.wait_event(left[turn - 2])
            _arrive(flat, pieces, brought)
        here.wait_stream(arriving)
        work(pieces, brought)
        leaving.wait_stream(here)
        with torch.cuda.stream(leaving):
            _leave(flat, pieces, brought)
            left.append(leaving.record_event())
    leaving.synchronize()


def _views(slot: Tensor, pieces: list[Piece]) -> list[list[Tensor]]:
    return [[row[piece.offset : piece.offset + piece.count] for piece in pieces] for row in slot]


def _arrive(flat: list[list[Tensor]], pieces: list[Piece], brought: list[list[Tensor]]) -> None:
    for tensors, views in zip(flat, brought, strict=True):
        for piece, view in zip(pieces, views, strict=True):
            view.copy_(piece.of(tensors[piece.index]), non_blocking=True)


def _leave(flat: list[list[Tensor]], pieces: list[Piece], brought: list[list[Tensor]]) -> None:
    for tensors, views in zip(flat, brought, strict=True):
        for piece, view in zip(pieces, views, strict=True):
            piece.of(tensors[piece.index]).copy_(view, non_blocking=True)


def _longest(chunks: list[list[Piece]]) -> int:
    """Elements of a slot for these chunks."""
    return max(pieces[-1].offset + _rounded_up(pieces[-1].count) for pieces in chunks)


def _rounded_up(count: int) -> int:
    return count + -count % _CUT


@torch.no_grad()
def host_copies(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    """Copies in the host's memory, in these types. They are complete when this returns."""
    copies = host_like(tensors, dtypes)
    for copy, one in zip(copies, tensors, strict=True):
        copy.copy_(one.to(copy.dtype), non_blocking=True)
    if any(one.is_cuda for one in tensors):
        torch.cuda.current_stream(tensors[0].device).synchronize()
    return copies


@torch.no_grad()
def bring(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    """Copies tensors of the host into those of the device. Types are changed on the device, which is faster."""
    for source, target in zip(sources, targets, strict=True):
        here = source if source.dtype == target.dtype else source.to(target.device, non_blocking=True)
        target.copy_(here, non_blocking=True)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HostShard(Shard):
    """A shard in the host's memory whose elements are read on the device, a bounded number of them at one time."""

    onto: torch.device

    @property
    def device(self) -> torch.device:
        return self.onto

    def part(self, start: int, count: int) -> Tensor:
        held = Shard.part(self, start, count)  # a dataclass with slots has no argumentless super
        return held.to(self.onto, non_blocking=True)

    def write(self, start: int, into: Tensor) -> None:
        for first in range(0, len(into), _READ):
            some = into[first : first + _READ]
            some.copy_(self.part(start + first, len(some)))


class OffloadedAdamW(torch.optim.AdamW):
    """AdamW whose means and steps are in the host's memory. A step has the bits of torch's fused AdamW on the parameters' device.

    The state of a parameter holds this rank's shard of the means.
    """

    chunk: int | None = None
    """Elements that are on the device at one time; None: as suits it."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        assert closure is None, "the gradients are there already"
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            fresh = [parameter for parameter in trained if parameter not in self.state]
            self.state.update(zip(fresh, self.empty_states(fresh), strict=True))
            if trained:
                self._step(trained, group)

    def _step(self, trained: list[Tensor], group: dict[str, Any]) -> None:
        weights = [local_shard(parameter).detach().view(-1) for parameter in trained]
        gradients = [local_shard(parameter.grad).reshape(-1) for parameter in trained if parameter.grad is not None]
        states = [self.state[parameter] for parameter in trained]
        device = weights[0].device

        def work(pieces: list[Piece], brought: list[list[Tensor]]) -> None:
            means, squares = brought
            adamw(
                [piece.of(weights[piece.index]) for piece in pieces],
                [piece.of(gradients[piece.index]) for piece in pieces],
                means,
                squares,
                [],
                [torch.full((), float(states[piece.index]["step"]), device=device) for piece in pieces],
                fused=True,
                amsgrad=False,
                maximize=False,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
            )

        stream([[state[mean] for state in states] for mean in MEANS], device, work, chunk=self.chunk)
        for state in states:
            state["step"] += 1

    def empty_states(self, parameters: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """The states of these parameters before their first step."""
        shards = [local_shard(parameter) for parameter in parameters]
        both = host_like(shards * len(MEANS), [shard.dtype for shard in shards] * len(MEANS))
        means = [both[index :: len(shards)] for index in range(len(shards))]
        return [
            {"step": torch.zeros(())} | {name: mean.zero_() for name, mean in zip(MEANS, own, strict=True)}
            for own in means
        ]


def empty_states(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """The states of these parameters before their first step, where this AdamW keeps them."""
    if isinstance(optimizer, OffloadedAdamW):
        return optimizer.empty_states(parameters)
    return [
        {"step": torch.zeros((), device=parameter.device)} | {name: torch.zeros_like(parameter) for name in MEANS}
        for parameter in parameters
    ]
