"""Finds the shape of the model that a run trains: from config.json alone, or from a number of parameters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from corewarding.dataflow.errors import UserError
from corewarding.launch.config.tree import TrainConfig
from corewarding.weights.hub import HubError, hub_config
from corewarding.weights.model_config import model_config
from corewarding.weights.model_shape import ModelShape, shape_of

NEAR = 0.1
"""A published model with this share of parameters more or fewer is taken as it is."""
SIZES: dict[str, tuple[int, tuple[int, int, int, int]]] = {
    "Qwen3-0.6B": (596_049_920, (1024, 3072, 28, 16)),
    "Qwen3-1.7B": (1_720_574_976, (2048, 6144, 28, 16)),
    "Qwen3-4B": (4_022_468_096, (2560, 9728, 36, 32)),
    "Qwen3-8B": (8_190_735_360, (4096, 12288, 36, 32)),
    "Qwen3-14B": (14_768_307_200, (5120, 17408, 40, 40)),
    "Qwen3-32B": (32_762_123_264, (5120, 25600, 64, 64)),
}
"""What `--params` stands for: parameters, and hidden size, MLP size, layers and heads (arXiv 2505.09388, table 1, and the models'
config.json)."""
_TIED = ("Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B")
_COMMON: dict[str, Any] = {"vocab_size": 151936, "num_key_value_heads": 8, "head_dim": 128, "dtype": "bfloat16"}
_UNITS = {"M": 10**6, "B": 10**9}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModel:
    """What is known of the model before its weights are."""

    name: str  # where the shape is from
    config: Any  # transformers' configuration
    shape: ModelShape


def planned_model(config: TrainConfig, *, params: str | None, model_config_file: Path | None) -> PlannedModel:
    """params: such as 8B, instead of the model that config names. model_config_file: its config.json, or a folder with one.

    UserError, with the remedy, if there is no config.json.
    """
    if params is not None:
        name, its = sized(number_of(params))
        return PlannedModel(name=f"--params {params}: {name}", config=its, shape=shape_on_meta(its))
    if model_config_file is not None:
        folder = model_config_file if model_config_file.is_dir() else model_config_file.parent
        return _of_folder(folder, named=f"--model-config {model_config_file}")
    folder = Path(config.model_folder)
    if folder.is_dir():
        return _of_folder(folder, named=f"model.path {config.model.path}")
    try:
        return _of_folder(hub_config(config.model.path, config.model.revision), named=f"model.path {config.model.path}")
    except HubError as error:
        raise UserError(
            f"{error}; a plan needs the model's config.json only: give a copy with --model-config FILE, or the size with --params 8B"
        ) from error


def _of_folder(folder: Path, *, named: str) -> PlannedModel:
    its = model_config(folder)
    return PlannedModel(name=named, config=its, shape=shape_on_meta(its))


def shape_on_meta(config: Any) -> ModelShape:
    """The shape of transformers' model of this configuration, which is made without memory."""
    try:
        with torch.device("meta"):
            # with another type, config would name that one afterwards, and the shape would have it
            dtype = getattr(config, "dtype", None) or torch.float32
            return shape_of(AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False))
    except ValueError as error:
        raise UserError(f"transformers has no causal language model of this configuration: {error}") from error


def number_of(text: str) -> float:
    """8B, 0.6B or 350M as a number. UserError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MB])", text.strip(), re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise UserError(f"--params {text}: write a number of parameters with M or B, for example 0.6B or 8B")
    return float(found[1]) * _UNITS[found[2].upper()]


def sized(num: float) -> tuple[str, Any]:
    """A name and transformers' configuration of a dense model with about `num` parameters: a published one if it is near, else the
    nearest one's width with more or fewer layers."""
    nearest = min(SIZES, key=lambda name: abs(SIZES[name][0] - num))
    published, sizes = SIZES[nearest]
    if abs(published - num) <= NEAR * num:
        return f"the shape of {nearest}", _published(nearest)
    layer = shape_on_meta(_published(nearest, num_hidden_layers=1)).group_elements()[1]
    layers = max(1, round((num - published) / layer) + sizes[2])
    return f"the width of {nearest} with {layers} layers", _published(nearest, num_hidden_layers=layers)


def _published(name: str, *, num_hidden_layers: int | None = None) -> Any:
    hidden, mlp, layers, heads = SIZES[name][1]
    sizes: dict[str, Any] = {"hidden_size": hidden, "intermediate_size": mlp, "num_attention_heads": heads}
    layers = num_hidden_layers or layers
    return Qwen3Config(**_COMMON, **sizes, num_hidden_layers=layers, tie_word_embeddings=name in _TIED)
