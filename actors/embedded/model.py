"""Loads the decoder, and refuses by name what the slot cache cannot serve."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from actors.embedded.cache import ATTENTION
from actors.engine import EngineError

SUPPORTED = ("qwen3", "qwen2", "llama")


def load_decoder(model_path: str | Path, *, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The folder's model in eval mode. EngineError for an architecture that is not a plain full-attention decoder."""
    config = AutoConfig.from_pretrained(model_path)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if config.model_type not in SUPPORTED or kinds != {"full_attention"}:
        raise EngineError(
            f"the embedded engine serves full-attention decoders ({', '.join(SUPPORTED)}); {model_path} is {config.model_type} "
            f"with layers {sorted(kinds)}"
        )
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype, attn_implementation=ATTENTION)
    return model.to(device).eval()
