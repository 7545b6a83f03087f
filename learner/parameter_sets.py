"""Policy, teacher and initial weights as named parameter sets over one sharded module.

The module holds the policy. The other sets are copies of this rank's shards, which can be put into the module for a while: the teacher
in float32, the initial weights in the type of the base model's folder, which keeps them exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from corewarding.dataflow.ids import Channel, SetName
from corewarding.learner.model import PREFIX, PolicyModel, first_element, forget_gathered, local_shard
from corewarding.weights.names import parts_of
from corewarding.weights.stream import Shard, checksum_tensor


class ParameterSets:
    """The named sets of one rank. Tensors are in the order of `names`."""

    def __init__(self, model: PolicyModel) -> None:
        self._model = model
        self._kept: dict[SetName, list[Tensor]] = {}
        self.names = [name.removeprefix(PREFIX) for name, _ in model.named_parameters()]
        """The parameters' names in memory, by which a checkpoint's learner state knows them."""
        parts = parts_of(model.model)
        self.parts = [parts[name] for name in self.names]
        """The tensors of a Hugging Face folder in each parameter."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The module's parameters: sharded, of the set that it holds now."""
        return list(self._model.parameters())

    @property
    def kept(self) -> tuple[SetName, ...]:
        """The sets besides the policy."""
        return tuple(self._kept)

    def keep(self, name: SetName, dtypes: Sequence[torch.dtype] | None = None) -> None:
        """Stores a copy of what the module holds now as the set `name`, in float32 or in these types, by parameter."""
        shards = self.shards_of("policy")
        wanted = [torch.float32] * len(shards) if dtypes is None else dtypes
        self._kept[name] = [local.to(dtype, copy=True) for local, dtype in zip(shards, wanted, strict=True)]

    @torch.no_grad()
    def shards_of(self, name: SetName) -> list[Tensor]:
        """This rank's shard of every parameter; the memory is shared with the set."""
        if name != "policy":
            return self._kept[name]
        return [local_shard(parameter) for parameter in self._model.parameters()]

    @contextmanager
    def using(self, name: SetName) -> Iterator[None]:
        """The module holds the set `name` inside the block, and the policy again after it, also after an error."""
        if name == "policy":
            yield
            return
        assert name in self._kept, f"this learner keeps no {name} weights"
        policy = [local.clone() for local in self.shards_of("policy")]
        self._put(self._kept[name])
        try:
            yield
        finally:
            self._put(policy)

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        forget_gathered(self._model)
        torch._foreach_copy_(self.shards_of("policy"), values)

    @torch.no_grad()
    def checksums(self) -> Tensor:
        """[sets, parameters] int64: this rank's part of the checksum of each parameter, of the policy and then of the sets that move.
        Added over the ranks they are the same for any division of the same weights."""
        moving: list[SetName] = ["policy", *(name for name in self.kept if name != "initial")]
        starts = [first_element(parameter) for parameter in self._model.parameters()]
        rows = [
            [
                checksum_tensor(local.reshape(-1), start)
                for local, start in zip(self.shards_of(name), starts, strict=True)
            ]
            for name in moving
        ]
        return torch.stack([torch.stack(row) for row in rows])

    def to_send(self, channel: Channel) -> list[Shard]:
        """This rank's elements of every tensor for the engines, under the checkpoint's names.

        They are contiguous views, because FSDP2 cuts parameters along the first axis.
        """
        shards = []
        for parts, parameter, local in zip(self.parts, self._model.parameters(), self.shards_of(channel), strict=True):
            begin, flat = first_element(parameter), local.detach().reshape(-1)
            for part in parts:
                first = min(max(begin, part.start), part.start + part.size)
                end = max(first, min(begin + len(flat), part.start + part.size))
                own = flat[first - begin : end - begin] if end > first else flat[:0]
                shards.append(Shard(name=part.name, shape=part.shape, start=first - part.start, local=own))
        return shards
