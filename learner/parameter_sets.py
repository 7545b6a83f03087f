"""Policy, teacher and initial weights as named parameter sets over one sharded module.

The module holds the policy. The other sets are copies of this rank's shards, which can be put into the module for a while: the teacher
in float32, the initial weights in the type of the base model's folder, which keeps them exactly. An offloaded set is in the host's
memory, and so is the policy while that set is in the module.

With adapters a set is a set of adapters; the module's other weights are frozen and common to all sets. The initial weights then are
the module with its adapters off, without a copy.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from corewarding.dataflow.ids import Channel, SetName
from corewarding.learner.lora.adapter import adapters_of, draw, switched_off
from corewarding.learner.lora.merging import LowRank
from corewarding.learner.model import PolicyModel, first_element, forget_gathered, local_shard, plain_parameters
from corewarding.learner.offload import HostShard, bring, host_copies
from corewarding.weights.names import parts_of
from corewarding.weights.stream import Shard


class ParameterSets:
    """The named sets of one rank. Tensors are in the order of `names`."""

    def __init__(self, model: PolicyModel) -> None:
        self._model = model
        self._kept: dict[SetName, list[Tensor]] = {}
        self._offloaded: set[SetName] = set()
        named = plain_parameters(model)
        self._is_trained = [parameter.requires_grad for _, parameter in named]
        self.names = [name for name, parameter in named if parameter.requires_grad]
        """The trained parameters' names in memory, by which a checkpoint's learner state knows them."""
        self.adapters = {adapter.weight: adapter for adapter in adapters_of(model.model)}
        """By the weight that each is added to; empty where all weights are trained."""
        inner = {name for adapter in self.adapters.values() for name in (adapter.a, adapter.b)}
        shapes = {name: tuple(parameter.shape) for name, parameter in named if name not in inner}
        self.parts = parts_of(model.model, shapes)
        """The tensors of a Hugging Face folder in each parameter of the base model, by its name in memory."""

    @torch.no_grad()
    def draw_adapters(self, seed: int) -> None:
        """Gives every adapter its first values, the same on any number of ranks: A is drawn, B is zero."""
        generator = torch.Generator().manual_seed(seed)
        trained = dict(zip(self.names, self.parameters, strict=True))
        for adapter in self.adapters.values():
            a, b = trained[adapter.a], trained[adapter.b]
            local, start = local_shard(a), first_element(a)
            local.copy_(draw(a, generator).view(-1)[start : start + local.numel()].view(local.shape))
            local_shard(b).zero_()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The module's trained parameters: sharded, of the set that it holds now."""
        return list(itertools.compress(self._model.parameters(), self._is_trained))

    @property
    def kept(self) -> tuple[SetName, ...]:
        """The sets besides the policy."""
        return tuple(self._kept)

    def is_offloaded(self, name: SetName) -> bool:
        """Whether the set is in the host's memory."""
        return name in self._offloaded

    def keep(self, name: SetName, dtypes: Sequence[torch.dtype] | None = None, *, offloaded: bool = False) -> None:
        """Stores a copy of what the module holds now as the set `name`, in float32 or in these types, by parameter.

        offloaded: in the host's memory. With adapters the initial weights need no copy, and there is none.
        """
        if name == "initial" and self.adapters:
            return
        shards = self.shards_of("policy")
        wanted = [torch.float32] * len(shards) if dtypes is None else dtypes
        if offloaded:
            self._offloaded.add(name)
            self._kept[name] = host_copies(shards, wanted)
        else:
            self._kept[name] = [local.to(dtype, copy=True) for local, dtype in zip(shards, wanted, strict=True)]

    @torch.no_grad()
    def shards_of(self, name: SetName) -> list[Tensor]:
        """This rank's shard of every trained parameter; the memory is shared with the set."""
        if name != "policy":
            return self._kept[name]
        return [local_shard(parameter) for parameter in self.parameters]

    @contextmanager
    def using(self, name: SetName) -> Iterator[None]:
        """The module holds the set `name` inside the block, and the policy again after it, also after an error."""
        if name == "policy":
            yield
            return
        if name == "initial" and self.adapters:
            forget_gathered(self._model)
            with switched_off(self._model):
                yield
            return
        assert name in self._kept, f"this learner keeps no {name} weights"
        shards, offloaded = self.shards_of("policy"), self.is_offloaded(name)
        policy = host_copies(shards, [s.dtype for s in shards]) if offloaded else [local.clone() for local in shards]
        self._put(self._kept[name], offloaded=offloaded)
        try:
            yield
        finally:
            self._put(policy, offloaded=offloaded)

    @torch.no_grad()
    def _put(self, values: list[Tensor], *, offloaded: bool) -> None:
        forget_gathered(self._model)
        if offloaded:
            bring(values, self.shards_of("policy"))
        else:
            torch._foreach_copy_(self.shards_of("policy"), values)

    @torch.no_grad()
    def checksums(self) -> Tensor:
        """[sets, parameters] int64: this rank's part of the checksum of each trained parameter, of the policy and then of the sets
        that move. Added over the ranks they are the same for any division of the same weights."""
        moving: list[SetName] = ["policy", *(name for name in self.kept if name != "initial")]
        named = list(zip(self.names, self.parameters, strict=True))
        rows = [
            [
                self._shard(
                    one, name=key, shape=tuple(p.shape), start=first_element(p), local=local.detach().reshape(-1)
                ).checksum(local.dtype)
                for (key, p), local in zip(named, self.shards_of(one), strict=True)
            ]
            for one in moving
        ]
        return torch.stack([torch.stack(row) for row in rows])

    def to_send(self, channel: Channel) -> list[Shard]:
        """This rank's elements of every tensor for the engines, under the checkpoint's names; adapters are merged in when read.

        They are contiguous views, because FSDP2 cuts parameters along the first axis. Collective where there are adapters.
        """
        whole = dict(plain_parameters(self._model))
        held = dict(zip(self.names, self.shards_of(channel), strict=True))
        shards = []
        for name, parts in self.parts.items():
            parameter = whole[name]
            local = held[name] if name in held else local_shard(parameter)
            added = self._low_rank(name, whole, held) if name in self.adapters else None
            begin, flat = first_element(parameter), local.detach().reshape(-1)
            for part in parts:
                first = min(max(begin, part.start), part.start + part.size)
                end = max(first, min(begin + len(flat), part.start + part.size))
                own = flat[first - begin : end - begin] if end > first else flat[:0]
                source = channel if name in held else "policy"  # of a set, or a frozen weight of the module
                shard = self._shard(source, name=part.name, shape=part.shape, start=first - part.start, local=own)
                shards.append(shard if added is None else added.merged_into(shard, offset=part.start))
        return shards

    def _shard(self, which: SetName, *, name: str, shape: tuple[int, ...], start: int, local: Tensor) -> Shard:
        """A shard of a set's tensor, which is read on the module's device."""
        if not self.is_offloaded(which):
            return Shard(name=name, shape=shape, start=start, local=local)
        return HostShard(name=name, shape=shape, start=start, local=local, onto=self._device)

    @property
    def _device(self) -> torch.device:
        return local_shard(next(self._model.parameters())).device

    @torch.no_grad()
    def _low_rank(self, weight: str, whole: Mapping[str, nn.Parameter], held: Mapping[str, Tensor]) -> LowRank:
        """The whole adapter of a weight, from the shards of all ranks."""
        adapter = self.adapters[weight]
        a, b = (_gathered(whole[name], held[name].to(self._device)) for name in (adapter.a, adapter.b))
        return LowRank(a=a, b=b, scale=adapter.scale)


def _gathered(parameter: nn.Parameter, local: Tensor) -> Tensor:
    """The whole of what each rank holds of a tensor that is cut as `parameter` is."""
    if not isinstance(parameter, DTensor):
        return local
    mesh, cut = parameter.device_mesh, parameter.placements
    held = DTensor.from_local(local, mesh, cut, run_check=False, shape=parameter.shape, stride=parameter.stride())
    return held.full_tensor()
