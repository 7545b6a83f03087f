"""The names and shapes of a model's weights, for engines that keep the weights themselves in another form or process."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from corewarding.weights.model_config import model_config
from corewarding.weights.names import parts_of, stored_views


def parameters_of(model_path: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The model's weights by the checkpoint's names, on the meta device; tied ones once, as the learner sends them."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config(model_path), dtype=dtype, trust_remote_code=False)
    return stored_views(parts_of(model), dict(model.named_parameters()))
