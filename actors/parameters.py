"""The names and shapes of a model's weights, for engines that keep the weights themselves in another form or process."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from corewarding.weights.names import parts_of, stored_views


def parameters_of(model_path: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The model's weights by the checkpoint's names, on the meta device; tied ones once, as the learner sends them."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_path), dtype=dtype)
    return stored_views(parts_of(model), dict(model.named_parameters()))
