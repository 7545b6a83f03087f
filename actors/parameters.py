"""The names and shapes of a model's weights, for engines that keep the weights themselves in another form or process."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM


def parameters_of(model_path: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The model's parameters by Hugging Face name, on the meta device; tied ones once, as the learner sends them."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_path), dtype=dtype)
    return dict(model.named_parameters())
