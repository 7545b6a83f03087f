"""Toy models of many architectures, built by transformers from their config classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB = 64
_SIZES = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": True}
_LOCAL = ["sliding_attention", "full_attention"]

TOYS: dict[str, dict[str, Any]] = {
    "qwen2": {"model_type": "qwen2"},
    "qwen2 tied": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen2 window": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "qwen3 tied": {"model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": True},
    "qwen2_moe": {"model_type": "qwen2_moe", "shared_expert_intermediate_size": 40, **_EXPERTS},
    "qwen3_moe": {"model_type": "qwen3_moe", "head_dim": 16, **_EXPERTS},
    "llama": {"model_type": "llama", "tie_word_embeddings": True},
    "llama 3": {
        "model_type": "llama",
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "mistral": {"model_type": "mistral", "sliding_window": None, "head_dim": 16},
    "mistral window": {"model_type": "mistral", "sliding_window": 6, "head_dim": 16},
    "ministral": {"model_type": "ministral", "sliding_window": 6, "layer_types": _LOCAL, "head_dim": 16},
    "mixtral": {"model_type": "mixtral", "sliding_window": None, "num_local_experts": 6, "num_experts_per_tok": 2},
    "phi3": {"model_type": "phi3", "sliding_window": None},
    "phi3 window": {"model_type": "phi3", "sliding_window": 6},
    "olmo": {"model_type": "olmo"},
    "olmo2": {"model_type": "olmo2"},
    "olmo3": {"model_type": "olmo3", "sliding_window": 6, "layer_types": _LOCAL},
    "olmoe": {"model_type": "olmoe", **_EXPERTS},
    "gemma": {"model_type": "gemma", "head_dim": 16},
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 16,
        "sliding_window": 6,
        "query_pre_attn_scalar": 16,
        "layer_types": _LOCAL,
    },
    "smollm3": {"model_type": "smollm3", "no_rope_layers": [1, 0], "tie_word_embeddings": True},
    "glm": {"model_type": "glm", "head_dim": 16},
    "glm4": {"model_type": "glm4", "head_dim": 16},
    "granite": {
        "model_type": "granite",
        "logits_scaling": 4.0,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.3,
    },
    "granitemoe": {"model_type": "granitemoe", "logits_scaling": 4.0, "num_local_experts": 6, "num_experts_per_tok": 2},
    "cohere": {"model_type": "cohere", "logit_scale": 0.25},
    "cohere2": {
        "model_type": "cohere2",
        "logit_scale": 0.25,
        "sliding_window": 6,
        "layer_types": _LOCAL,
        "head_dim": 8,
    },
    "seed_oss": {"model_type": "seed_oss", "head_dim": 16},
    "exaone4": {"model_type": "exaone4", "sliding_window": 6, "layer_types": _LOCAL},
    "ernie4_5": {"model_type": "ernie4_5", "head_dim": 16},
    "starcoder2": {"model_type": "starcoder2", "sliding_window": None},
    "stablelm": {"model_type": "stablelm"},
    "helium": {"model_type": "helium", "head_dim": 8},
    "hunyuan": {"model_type": "hunyuan_v1_dense", "head_dim": 16},
    "nemotron": {"model_type": "nemotron"},
    "arcee": {"model_type": "arcee"},
}
"""Models that the learner trains, by the name of the test case."""

REFUSED: dict[str, dict[str, Any]] = {
    "gemma2": {"model_type": "gemma2", "head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 16},
    "nanochat": {"model_type": "nanochat"},
    "minicpm3": {
        "model_type": "minicpm3", "dim_model_base": 8, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8, "v_head_dim": 8,
    },
    "qwen3_next": {"model_type": "qwen3_next"},
    "gpt_oss": {"model_type": "gpt_oss"},
    "phi": {"model_type": "phi"},
    "bitnet": {"model_type": "bitnet"},
    "gpt_neox": {"model_type": "gpt_neox"},
    "phi3 longrope": {
        "model_type": "phi3", "original_max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 10000.0, "long_factor": [2.0] * 4, "short_factor": [1.0] * 4,
            "original_max_position_embeddings": 64,
        },
    },
}  # fmt: skip
"""Models that it refuses; bitnet only because it is not listed."""


def config_of(name: str, **changes: Any) -> Any:
    """The transformers config of one of TOYS or REFUSED."""
    values = _SIZES | (TOYS | REFUSED)[name] | changes
    return AutoConfig.for_model(**values)


def toy_model(name: str, *, seed: int = 0, attention: str = "eager", **changes: Any) -> Any:
    """A model of random weights, in float32, with transformers' own attention."""
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(
        config_of(name, **changes), dtype=torch.float32, attn_implementation=attention
    )


def write_toy(name: str, folder: Path, *, seed: int = 0, **changes: Any) -> str:
    """The model's folder, written by transformers."""
    toy_model(name, seed=seed, **changes).save_pretrained(folder)
    return str(folder)
