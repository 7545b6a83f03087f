"""The learner's decoder: packed tokens in, logprobs of the completion tokens out, sharded by FSDP2.

The model is made without memory, sharded, and only then read from its folder: a rank holds its own shards and never the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from corewarding.learner.attention import PackedMask, use_packed_attention
from corewarding.learner.lora.adapter import attach, plain_name
from corewarding.learner.objective.logprobs import float32_product, token_logprobs
from corewarding.learner.objective.packing import MicroBatch
from corewarding.learner.settings import LearnerSettings
from corewarding.weights.architectures import ArchitectureError, logit_scale, windows
from corewarding.weights.model_loading import BaseWeights, allocate, empty_model

PREFIX = "model."  # the wrapper puts it in front of the Hugging Face parameter names


class LogprobHead(nn.Module):
    """The output embedding with the logprobs on top: a module, so that FSDP gathers the weight for its forward and backward."""

    def __init__(self, weight: nn.Parameter, *, chunk_tokens: int, logit_scale: float = 1.0) -> None:
        """logit_scale: the number by which the Hugging Face model multiplies what its output embedding returns."""
        super().__init__()
        self.weight = weight
        self.chunk_tokens = chunk_tokens
        self.logit_scale = logit_scale

    def forward(
        self, hidden: Tensor, batch: MicroBatch | None = None, statistics: bool = False
    ) -> Tensor | tuple[Tensor, Tensor | None, Tensor | None]:
        """What PolicyModel.forward returns, from [T, H]; without a batch the logits, as the Hugging Face model calls it."""
        if batch is None:
            flat = float32_product(hidden.flatten(0, -2), self.weight.T)
            return flat.unflatten(0, hidden.shape[:-1])
        return token_logprobs(
            hidden,
            self.weight,
            batch.target_T,
            batch.temperature_T / self.logit_scale,
            chunk=self.chunk_tokens,
            statistics=statistics,
        )


class PolicyModel(nn.Module):
    """A Hugging Face causal decoder whose output embedding also computes logprobs."""

    def __init__(self, model: nn.Module, *, chunk_tokens: int) -> None:
        super().__init__()
        self.model = model
        self.windows = windows(model.config)
        output = model.get_output_embeddings()  # type: ignore[operator]
        decoder = getattr(model, "model", None)
        if not isinstance(getattr(decoder, "layers", None), nn.ModuleList) or getattr(output, "bias", None) is not None:
            raise ArchitectureError(
                f"{type(model).__name__} is not a decoder `model` of `layers` with an output embedding without bias, so the learner "
                "cannot train it; take a model of an architecture in docs/architecture.md"
            )
        head = LogprobHead(output.weight, chunk_tokens=chunk_tokens, logit_scale=logit_scale(model.config))
        model.set_output_embeddings(head)  # type: ignore[operator]
        use_packed_attention(model)

    def compile_layers(self) -> None:
        """Compiles each layer for all shapes of rows; the layers share what is compiled, with hooks and checkpoints outside of it."""
        for layer in self.layers:
            layer.forward = torch.compile(layer.forward, dynamic=True)

    @property
    def config(self) -> Any:
        """transformers' configuration of the model."""
        return self.model.config

    @property
    def layers(self) -> nn.ModuleList:
        layers = self.model.model.layers  # type: ignore[union-attr]
        assert isinstance(layers, nn.ModuleList)
        return layers

    @property
    def embedding(self) -> nn.Module:
        embedding = self.model.get_input_embeddings()  # type: ignore[operator]
        assert isinstance(embedding, nn.Module)
        return embedding

    @property
    def head(self) -> LogprobHead:
        head = self.model.get_output_embeddings()  # type: ignore[operator]
        assert isinstance(head, LogprobHead)
        return head

    def forward(self, batch: MicroBatch, statistics: bool = False) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """[T] logprobs of the completion tokens and, on request, [T] entropy and [T] self-certainty without gradient."""
        mask = PackedMask.of(batch.layout)
        output = self.model.model(  # type: ignore[union-attr, operator]
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=mask if len(self.windows) == 1 else dict.fromkeys(self.windows, mask),
            use_cache=False,
        )
        hidden = output.last_hidden_state.flatten(0, 1).index_select(0, batch.predict_T)
        logprobs: tuple[Tensor, Tensor | None, Tensor | None] = self.head(hidden, batch, statistics)
        return logprobs

    def plain_logprobs(self, ids: Tensor, num: int) -> Tensor:
        """[num] log-probabilities of the last tokens of one sequence, [C] int64, by transformers' own forward, without packing."""
        output = self.model(input_ids=ids[None], use_cache=False, logits_to_keep=num + 1)
        logprobs = output.logits[0, :-1].float().log_softmax(-1)
        return logprobs.gather(-1, ids[-num:, None])[:, 0]


def shard(policy: PolicyModel, mesh: DeviceMesh, *, param_dtype: torch.dtype) -> None:
    """fully_shard on every layer, the embedding, the head and the root, each a group that is gathered by itself.

    A head that is tied to the embedding shares its group. Master weights stay float32, gradients are reduced in float32.
    Activations have the type of the gathered weights, as in a plain Hugging Face model of that type. FSDP must not cast the
    inputs: it would reach into the micro-batch and round its temperatures.
    """
    precision = (
        MixedPrecisionPolicy(param_dtype=param_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        if param_dtype != torch.float32
        else MixedPrecisionPolicy()
    )
    ends: list[nn.Module] = [policy.embedding, policy.head]
    tied = policy.embedding.weight is policy.head.weight
    for group in [[layer] for layer in policy.layers] + ([ends] if tied else [[end] for end in ends]):
        fully_shard(group, mesh=mesh, mp_policy=precision)
    fully_shard(policy, mesh=mesh, mp_policy=precision, reshard_after_forward=True)
    register_fsdp_forward_method(policy, "plain_logprobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPolicy:
    """The sharded model with the base model's weights."""

    model: PolicyModel
    base_dtypes: list[torch.dtype]  # by parameter: the type in which the base model's folder keeps it


Loading: TypeAlias = Generator[tuple[int, int], None, LoadedPolicy]
"""Loads a model step by step. Yields after each step the bytes that this rank has read, and all that it reads."""


def load_policy(
    folder: str,
    settings: LearnerSettings,
    device: torch.device,
    world_size: int,
    *,
    on_read: Callable[[int, int], None] = lambda done, total: None,
) -> LoadedPolicy:
    """`loading` in one call. on_read: gets what it yields."""
    steps = loading(folder, settings, device, world_size)
    while True:
        try:
            on_read(*next(steps))
        except StopIteration as end:
            loaded: LoadedPolicy = end.value
            return loaded


def loading(folder: str, settings: LearnerSettings, device: torch.device, world_size: int) -> Loading:
    """The model of a folder on `device`, in float32, with parameters sharded over all ranks. ModelFilesError if it cannot be read.

    With adapters, which get memory but no values, frozen weights may stay in the folder's type.
    """
    model = empty_model(folder, dtype=torch.float32, attention="sdpa", device=device)
    weights = BaseWeights(folder, model)
    if settings.lora.is_on:
        attach(model, settings.lora, folder=folder)
        _keep_frozen_as_stored(model, weights, getattr(torch, settings.param_dtype))
    model.config.use_cache = False
    model.train()
    if settings.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    policy = PolicyModel(model, chunk_tokens=settings.logprob_chunk_tokens)
    if settings.compile:
        policy.compile_layers()
    mesh = init_device_mesh(device.type, (world_size,))
    shard(policy, mesh, param_dtype=getattr(torch, settings.param_dtype))
    allocate(policy, device)
    named = [(name, parameter) for name, parameter in plain_parameters(policy) if name in weights]
    done = 0
    total = sum(weights.num_bytes(name) * local_shard(p).numel() // p.numel() for name, p in named)
    for name, parameter in named:
        for count in weights.read(name, local_shard(parameter).detach().view(-1), first_element(parameter)):
            done += count
            yield done, total
    return LoadedPolicy(model=policy, base_dtypes=[weights.dtype(name) for name, _ in named])


def _keep_frozen_as_stored(model: nn.Module, weights: BaseWeights, dtype: torch.dtype) -> None:
    """Frozen weights that the folder keeps in the type of the passes stay in it: exact, and in half the memory of float32."""
    for name, parameter in model.named_parameters():
        stored = plain_name(name)
        if not parameter.requires_grad and weights.dtype(stored) == dtype:
            parameter.data = parameter.data.to(dtype)


def plain_parameters(policy: PolicyModel) -> list[tuple[str, nn.Parameter]]:
    """All parameters, in the module's order, by their names in a transformers model or, for adapters, in peft's files."""
    return [(plain_name(name.removeprefix(PREFIX)), parameter) for name, parameter in policy.named_parameters()]


def local_shard(parameter: Tensor) -> Tensor:
    """This rank's part of a parameter; the memory is shared."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def first_element(parameter: Tensor) -> int:
    """Where this rank's part begins in the flattened parameter: FSDP2 cuts along the first axis, in parts of equal length."""
    if not isinstance(parameter, DTensor):
        return 0
    mesh, shape = parameter.device_mesh, parameter.shape
    rows = -(-shape[0] // mesh.size())
    return min(mesh.get_local_rank() * rows, shape[0]) * math.prod(shape[1:])


def forget_gathered(policy: PolicyModel) -> None:
    """Frees gathered parameters, so that the next forward gathers the shards anew after they were changed in place."""
    for module in policy.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
