"""The architectures that the learner trains, and what of a model's config.json it must follow or refuse.

The learner runs a decoder on packed rows with an attention of its own, and computes log-probabilities from the output embedding
itself. What transformers does around that would be dropped without a word, so a model is known to this table or refused before it is
loaded. Every row is proven by toy models: packed log-probabilities and gradients are those of transformers. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from corewarding.dataflow.errors import UserError

FULL, SLIDING = "full_attention", "sliding_attention"


class ArchitectureError(UserError):
    """A model that the learner cannot train, or not correctly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One class of models."""

    model_type: str  # of its config.json
    examples: str  # published models
    logit_factor: str | None = None  # the key by which its logits are multiplied
    logit_divisor: str | None = None  # the key by which its logits are divided


ARCHITECTURES: dict[str, Architecture] = {
    "ArceeForCausalLM": Architecture(model_type="arcee", examples="AFM-4.5B"),
    "CohereForCausalLM": Architecture(model_type="cohere", examples="Aya 23, Command R", logit_factor="logit_scale"),
    "Cohere2ForCausalLM": Architecture(
        model_type="cohere2", examples="Command R7B, Command A", logit_factor="logit_scale"
    ),
    "Ernie4_5ForCausalLM": Architecture(model_type="ernie4_5", examples="ERNIE 4.5 0.3B"),
    "Exaone4ForCausalLM": Architecture(model_type="exaone4", examples="EXAONE 4.0"),
    "Gemma3ForCausalLM": Architecture(model_type="gemma3_text", examples="Gemma 3 270M and 1B"),
    "GemmaForCausalLM": Architecture(model_type="gemma", examples="Gemma 1"),
    "Glm4ForCausalLM": Architecture(model_type="glm4", examples="GLM-4-0414, GLM-Z1"),
    "GlmForCausalLM": Architecture(model_type="glm", examples="GLM-4-9B"),
    "GraniteForCausalLM": Architecture(model_type="granite", examples="Granite 3", logit_divisor="logits_scaling"),
    "GraniteMoeForCausalLM": Architecture(
        model_type="granitemoe", examples="Granite 3 1B-A400M, 3B-A800M", logit_divisor="logits_scaling"
    ),
    "HeliumForCausalLM": Architecture(model_type="helium", examples="Helium 1"),
    "HunYuanDenseV1ForCausalLM": Architecture(model_type="hunyuan_v1_dense", examples="Hunyuan 0.5B to 7B"),
    "LlamaForCausalLM": Architecture(
        model_type="llama", examples="Llama 2, 3, 3.1, 3.2 (1B, 3B), 3.3; SmolLM 2; DeepSeek-R1-Distill-Llama"
    ),
    "MinistralForCausalLM": Architecture(model_type="ministral", examples="Ministral 8B"),
    "MistralForCausalLM": Architecture(model_type="mistral", examples="Mistral 7B, NeMo, Small 24B"),
    "MixtralForCausalLM": Architecture(model_type="mixtral", examples="Mixtral 8x7B"),
    "NemotronForCausalLM": Architecture(model_type="nemotron", examples="Nemotron 4 Mini"),
    "Olmo2ForCausalLM": Architecture(model_type="olmo2", examples="OLMo 2"),
    "Olmo3ForCausalLM": Architecture(model_type="olmo3", examples="OLMo 3"),
    "OlmoForCausalLM": Architecture(model_type="olmo", examples="OLMo 1"),
    "OlmoeForCausalLM": Architecture(model_type="olmoe", examples="OLMoE 1B-7B"),
    "Phi3ForCausalLM": Architecture(model_type="phi3", examples="Phi 3, 3.5 mini, 4, 4 mini"),
    "Qwen2ForCausalLM": Architecture(model_type="qwen2", examples="Qwen 2, 2.5, 2.5-Math; DeepSeek-R1-Distill-Qwen"),
    "Qwen2MoeForCausalLM": Architecture(model_type="qwen2_moe", examples="Qwen 1.5 and 2 MoE"),
    "Qwen3ForCausalLM": Architecture(model_type="qwen3", examples="Qwen 3, dense"),
    "Qwen3MoeForCausalLM": Architecture(model_type="qwen3_moe", examples="Qwen 3 MoE"),
    "SeedOssForCausalLM": Architecture(model_type="seed_oss", examples="Seed-OSS 36B"),
    "SmolLM3ForCausalLM": Architecture(model_type="smollm3", examples="SmolLM 3"),
    "StableLmForCausalLM": Architecture(model_type="stablelm", examples="StableLM 2"),
    "Starcoder2ForCausalLM": Architecture(model_type="starcoder2", examples="StarCoder 2"),
}
"""By the class that a model's config.json names."""


def check_architecture(config: Any, *, folder: str, longest: int, allow_unlisted: bool = False) -> None:
    """ArchitectureError, with every reason, if the learner would compute other log-probabilities than transformers.

    config: transformers' of the model in `folder`. longest: tokens of the longest prompt with its completion. allow_unlisted: accept
    a class outside the table; then only the check at load shows whether it is right.
    """
    reasons = list(_unlisted(config, allow_unlisted))
    reasons += [reason for rule in RULES for reason in rule(config, longest)]
    if reasons:
        raise ArchitectureError(f"model.path {folder}: " + "\n".join(reasons))


def class_of(config: Any) -> str:
    """The class that config.json names, else the one of the table with the same model_type, else the model_type."""
    named = list(getattr(config, "architectures", None) or ())
    same = [name for name, row in ARCHITECTURES.items() if row.model_type == config.model_type]
    return str((named or same or [config.model_type])[0])


def logit_scale(config: Any) -> float:
    """The number by which the model multiplies its logits."""
    row = ARCHITECTURES.get(class_of(config))
    if row is None:
        return 1.0
    factor = _number(config, row.logit_factor) if row.logit_factor else 1.0
    return factor / (_number(config, row.logit_divisor) if row.logit_divisor else 1.0)


def windows(config: Any) -> dict[str, int | None]:
    """The attention window of each kind of layer, in tokens; None: the layer sees everything before a token."""
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None) or None
    if not kinds:
        return {FULL: window}
    return {kind: window if kind == SLIDING else None for kind in dict.fromkeys(kinds)}


def _number(config: Any, key: str) -> float:
    value = getattr(config, key, None)
    return 1.0 if value is None else float(value)


def _unlisted(config: Any, allowed: bool) -> Iterator[str]:
    name, row = class_of(config), ARCHITECTURES.get(class_of(config))
    if row is not None and row.model_type != config.model_type:
        yield f"config.json names {name}, which has model_type {row.model_type}, but its model_type is {config.model_type}"
    elif row is None and not allowed:
        yield (
            f"its architecture is {name}, and the learner trains {', '.join(sorted(ARCHITECTURES))}. Take one of these; or set "
            "model.allow_unlisted true, and the run starts if packed rows have the log-probabilities of transformers"
        )


def _softcaps(config: Any, longest: int) -> Iterator[str]:
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        value = getattr(config, key, None)
        if value:
            yield (
                f"{key} is {value:g}: the learner's attention and output embedding have no softcap, so it would be dropped; take a "
                "model without it"
            )


def _scales(config: Any, longest: int) -> Iterator[str]:
    row = ARCHITECTURES.get(class_of(config))
    known = () if row is None else (row.logit_factor, row.logit_divisor)
    for key in ("logit_scale", "logits_scaling", "lm_head_multiplier"):
        if key not in known and _number(config, key) != 1:
            yield f"{key} is {_number(config, key):g}: for {class_of(config)} it would be dropped; take another model"


def _layers(config: Any, longest: int) -> Iterator[str]:
    others = sorted(windows(config).keys() - {FULL, SLIDING})
    if others:
        yield f"layer_types has {', '.join(others)}: the learner's masks are for {FULL} and {SLIDING} only; take another model"
    if SLIDING in windows(config) and not windows(config)[SLIDING]:
        yield f"layer_types has {SLIDING}, but sliding_window is not set in config.json"
    if getattr(config, "use_bidirectional_attention", None):
        yield "use_bidirectional_attention is set: a token would see later ones; take a causal model"


def _rope(config: Any, longest: int) -> Iterator[str]:
    """Some scalings of positions depend on the longest position of a whole forward, so on what else is in the micro-batch."""
    given = getattr(config, "rope_parameters", None) or {}
    nested = [part for part in given.values() if isinstance(part, dict)]
    for rope in nested or [given]:
        kind = rope.get("rope_type", "default")
        limit = rope.get("original_max_position_embeddings") or config.max_position_embeddings
        if kind in ("dynamic", "longrope") and longest > limit:
            yield (
                f"its positions are scaled by {kind}, which changes with the longest sequence of a forward beyond {limit} tokens, and "
                f"data.max_prompt_tokens + rollout.max_new_tokens is {longest}; lower them to {limit}"
            )


RULES: tuple[Callable[[Any, int], Iterator[str]], ...] = (_softcaps, _scales, _layers, _rope)
"""Each yields what it finds wrong; they hold for allowed unlisted architectures too."""
