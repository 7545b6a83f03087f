"""Low-rank adapters on linear layers, by peft: y = W x + (alpha / rank) B A x with A [rank, in] and B [out, rank] (arXiv 2106.09685).

Only A and B are trained; B begins as zeros, so the policy begins as the base model. With the adapters off the model is the base
model: no second copy of it is kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from corewarding.dataflow.errors import UserError
from corewarding.learner.lora.settings import ALL_LINEAR, LoraSettings
from corewarding.weights.model_loading import empty_model

NAME = "default"
"""peft's name of the adapter in a module."""


class LoraError(UserError):
    """`learner.lora` does not fit the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """The adapter of one weight, by names without the wrappers that peft puts around a layer."""

    weight: str  # [out, in], of the base model
    a: str  # [rank, in]
    b: str  # [out, rank]
    scale: float


def target_names(model: Any, settings: LoraSettings, *, folder: str) -> list[str]:
    """The linear layers of a transformers decoder that get an adapter, in its order. LoraError for a target that matches none."""
    layers = [
        f"model.layers.{name}"
        for name, module in model.model.layers.named_modules()
        if isinstance(module, nn.Linear) and module.weight.ndim == 2
    ]
    wanted = [target for target in settings.targets if target != ALL_LINEAR]
    kinds = sorted({name.rpartition(".")[2] for name in layers})
    for target in wanted:
        if not any(f".{name}".endswith(f".{target}") for name in layers):
            there = f"its layers have {', '.join(kinds)}" if kinds else "its layers have none"
            raise LoraError(
                f"learner.lora.targets: {target} matches no linear layer in the decoder layers of model.path {folder}; {there}. Name "
                f"some of these, or {ALL_LINEAR}"
                + ("" if kinds else "; or set learner.lora.rank null to train all weights")
            )
    if not layers:
        raise LoraError(
            f"learner.lora.targets: {ALL_LINEAR} matches nothing, because the decoder layers of model.path {folder} have no linear "
            "layers; set learner.lora.rank null to train all weights"
        )
    return [name for name in layers if settings.takes(name)]


def check_targets(folder: str | Path, settings: LoraSettings, *, name: str) -> None:
    """LoraError unless every target matches. Loads no weights. name: of the folder, for messages."""
    model = empty_model(folder, dtype=torch.float32, attention="sdpa", device=torch.device("cpu"))
    target_names(model, settings, folder=name)


def attach(model: Any, settings: LoraSettings, *, folder: str) -> None:
    """Wraps the targets of a transformers model on the meta device, and freezes all other parameters. LoraError as in target_names.

    The adapters have undefined values once they have memory; `draw` fills them.
    """
    from peft import inject_adapter_in_model

    names = target_names(model, settings, folder=folder)
    inject_adapter_in_model(peft_config(settings, names), model, adapter_name=NAME, low_cpu_mem_usage=True)


def peft_config(settings: LoraSettings, targets: list[str]) -> Any:
    """peft's configuration of an adapter with these settings on the modules `targets`."""
    from peft import LoraConfig

    return LoraConfig(
        r=settings.rank or 0,
        lora_alpha=settings.alpha,
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


def adapters_of(model: nn.Module) -> list[Adapter]:
    """The adapters of a module, in its order; none if it has none attached."""
    return [
        Adapter(
            weight=f"{name}.weight", a=f"{name}.lora_A.weight", b=f"{name}.lora_B.weight", scale=module.scaling[NAME]
        )
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    ]


def plain_name(name: str) -> str:
    """A parameter's name without peft's wrappers: that of the base model, or that of an adapter in peft's files."""
    return re.sub(rf"\.(lora_[AB])\.{NAME}\.", r".\1.", name.replace(".base_layer.", "."))


@torch.no_grad()
def draw(a: Tensor, generator: torch.Generator) -> Tensor:
    """[rank, in] first values of an A: uniform within 1 / sqrt(in), as in peft."""
    bound = 1 / math.sqrt(a.shape[1])
    return torch.empty(a.shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator)


@contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """Inside the block the model computes what the base model does."""
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "lora_A")]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
