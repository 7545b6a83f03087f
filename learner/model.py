"""The learner's decoder: packed tokens in, logprobs of the completion tokens out, sharded by FSDP2.

Logprobs are computed inside the root module's forward, because FSDP gathers the (tied) output embedding there.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from transformers import AutoModelForCausalLM

from corewarding.learner.objective.logprobs import token_logprobs
from corewarding.learner.objective.packing import MicroBatch
from corewarding.learner.settings import LearnerSettings

PREFIX = "model."  # the wrapper puts it in front of the Hugging Face parameter names


class PolicyModel(nn.Module):
    """A Hugging Face causal decoder with the logprob head on top."""

    def __init__(self, model: nn.Module, *, chunk_tokens: int) -> None:
        super().__init__()
        self.model = model
        self.chunk_tokens = chunk_tokens

    @property
    def layers(self) -> nn.ModuleList:
        layers = self.model.model.layers  # type: ignore[union-attr]
        assert isinstance(layers, nn.ModuleList)
        return layers

    def forward(self, batch: MicroBatch, statistics: bool = False) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """[T] logprobs of the completion tokens and, on request, [T] entropy and [T] self-certainty without gradient."""
        output = self.model.model(  # type: ignore[union-attr, operator]
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=batch.attention_mask(),
            use_cache=False,
        )
        hidden = output.last_hidden_state.flatten(0, 1).index_select(0, batch.predict_T)
        weight = self.model.lm_head.weight  # type: ignore[union-attr]
        return token_logprobs(
            hidden,
            weight,  # type: ignore[arg-type]
            batch.target_T,
            batch.temperature_T,
            chunk=self.chunk_tokens,
            statistics=statistics,
        )


def load_policy(model_path: str | Path, *, chunk_tokens: int, activation_checkpointing: bool) -> PolicyModel:
    """The model of a Hugging Face folder, in float32 on the CPU."""
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32, attn_implementation="sdpa")
    model.config.use_cache = False
    model.train()
    if activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return PolicyModel(model, chunk_tokens=chunk_tokens)


def shard(policy: PolicyModel, mesh: DeviceMesh, *, param_dtype: torch.dtype) -> None:
    """fully_shard on every layer and on the root; master weights stay float32, gradients are reduced in float32.

    Activations have the type of the gathered weights, as in a plain Hugging Face model of that type. FSDP must not cast the
    inputs: it would reach into the micro-batch and round its temperatures.
    """
    precision = (
        MixedPrecisionPolicy(param_dtype=param_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        if param_dtype != torch.float32
        else MixedPrecisionPolicy()
    )
    for layer in policy.layers:
        fully_shard(layer, mesh=mesh, mp_policy=precision)
    fully_shard(policy, mesh=mesh, mp_policy=precision, reshard_after_forward=True)


def sharded_policy(model_path: str, settings: LearnerSettings, device: torch.device, world_size: int) -> PolicyModel:
    """The model on `device`, with parameters sharded over all ranks."""
    policy = load_policy(
        model_path,
        chunk_tokens=settings.logprob_chunk_tokens,
        activation_checkpointing=settings.activation_checkpointing,
    ).to(device)
    shard(policy, init_device_mesh(device.type, (world_size,)), param_dtype=getattr(torch, settings.param_dtype))
    return policy


def forget_gathered(policy: PolicyModel) -> None:
    """Frees gathered parameters, so that the next forward gathers the shards anew after they were changed in place."""
    for module in policy.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
