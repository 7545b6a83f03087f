"""Memory of one learner rank at each moment of an update, and of one engine, by part. Imports no torch.

What a rank keeps is exact: float32 weights, gradients and the two means of AdamW (arXiv 1711.05101), the teacher in float32, the
initial weights in the type of the model's folder, each cut by FSDP2 along the first axis and padded. What comes and goes is counted
as FSDP2 makes it: while a group of parameters is computed the next one is already gathered, and gradients are reduced in float32
from a flat copy. What learner.offload names is in the host's memory, and on the GPU only what is streamed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from corewarding.actors.engines import ENGINES
from corewarding.dataflow.ids import Source
from corewarding.launch.config.tree import TrainConfig
from corewarding.learner.settings import STREAMED_ELEMENTS, Offloadable
from corewarding.weights.model_shape import ModelShape

if TYPE_CHECKING:
    from corewarding.launch.plan.trace import Activations

GB, MB = 10**9, 10**6
ELEMENT = {"float32": 4, "bfloat16": 2}
"""Bytes of one number."""
QUANTIZED = 0.5
"""The fewest bytes of a weight that an engine quantizes."""
CONTEXT = GB
"""Bytes that CUDA's context, the kernels' workspaces and NCCL's buffers take on a GPU, about; torch does not count them."""

Parts = dict[str, int]
"""Bytes by part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """One learner rank, the fullest. At each moment of an update: its parts."""

    moments: dict[str, Parts]
    lasting: Parts  # what is there between two updates
    host: Parts  # what learner.offload keeps in the host's memory instead, and the policy beside it

    @property
    def peak(self) -> int:
        return max(map(total, self.moments.values()))

    @property
    def fullest(self) -> str:
        """The moment of the peak."""
        return max(self.moments, key=lambda moment: total(self.moments[moment]))


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMemory:
    """One engine, on each of its GPUs."""

    parts: Parts  # without the KV cache of an engine that fills what it is given
    kv_token: float  # bytes of a token's keys and values
    longest: int  # tokens of the longest sequence
    slots: int
    fills: bool  # its KV cache takes what is left of its share

    @property
    def needs(self) -> int:
        """Least bytes with which it runs: one sequence of full length must fit."""
        return total(self.parts) + (int(self.kv_token * self.longest) if self.fills else 0)


def total(parts: Parts) -> int:
    return sum(parts.values())


def in_gb(num_bytes: float) -> str:
    """As GB, or MB if it is less than one."""
    return f"{num_bytes / GB:.1f} GB" if num_bytes >= GB else f"{num_bytes / MB:.1f} MB"


def rank_on_gpu(config: TrainConfig) -> bool:
    learner = config.learner
    return learner.device == "cuda" or (learner.device == "auto" and learner.gpus_per_rank > 0)


def micro_batch_tokens(config: TrainConfig) -> int:
    """Tokens of the largest micro-batch: a row longer than learner.micro_batch_tokens gets its own."""
    return max(config.learner.micro_batch_tokens, config.longest_sequence)


def lasting_parts(config: TrainConfig, shape: ModelShape) -> Parts:
    """What a rank keeps from its first update on."""
    elements = shape.elements(config.learner.ranks)
    return _on_device(config, _state(config, elements, trained_elements(config, shape), shape.stored_bytes * elements))


def host_bytes(config: TrainConfig, *, elements: int, trained: int, initial: int) -> int:
    """What a rank keeps in the host's memory. The arguments are those of `certain_bytes`."""
    return total(_on_host(config, _state(config, elements, trained, initial), trained))


def certain_bytes(config: TrainConfig, *, elements: int, trained: int, initial: int, largest: int) -> int:
    """What a rank needs for certain, in the backward pass of its largest parameter, which is gathered whole.

    elements: of the model's parameters that it holds. trained: elements that it trains. initial: bytes of its parameters in the
    model's folder. largest: elements of the largest parameter, on all ranks.
    """
    element = ELEMENT[config.learner.param_dtype]
    gathered = element * largest + (element * largest if trained else 0)  # it, and its gradient before that is reduced
    kept = _on_device(config, _state(config, elements, trained, initial))
    return total(kept) + 4 * trained + max(gathered, _streamed(config, trained))


def offloaded(config: TrainConfig) -> frozenset[Offloadable]:
    """What is in the host's memory instead of the GPU's: nothing where the rank is on the CPU."""
    return frozenset(config.learner.offload if rank_on_gpu(config) else ())


def offloadable(config: TrainConfig) -> list[Offloadable]:
    """What a rank has that learner.offload can name."""
    found: list[Offloadable] = ["optimizer"]
    if config.keeps_teacher:
        found.append("teacher")
    if _keeps_initial(config):
        found.append("reference")
    return found


def reference_pass(config: TrainConfig) -> Offloadable | None:
    """The set that takes the policy's place for the KL term, by its name in learner.offload; None: no set does."""
    if config.has_kl_term and config.kl_reference == "teacher":
        return "teacher"
    return "reference" if _keeps_initial(config) else None


def _keeps_initial(config: TrainConfig) -> bool:
    return config.kl_reference == "initial" and config.has_kl_term and not config.learner.lora.is_on


def _on_device(config: TrainConfig, state: Parts) -> Parts:
    away = offloaded(config)
    return {part: size for part, size in state.items() if part not in away}


def _on_host(config: TrainConfig, state: Parts, trained: int) -> Parts:
    away = offloaded(config)
    aside = {"policy set aside": 4 * trained} if reference_pass(config) in away else {}
    return {part: size for part, size in state.items() if part in away} | aside


def _streamed(config: TrainConfig, trained: int) -> int:
    """Bytes of AdamW's means that are on the GPU while the optimizer makes its step; those of a teacher that is streamed after it are
    fewer than the gradients before."""
    return 8 * min(trained, 2 * STREAMED_ELEMENTS) if "optimizer" in offloaded(config) else 0


def _state(config: TrainConfig, elements: int, trained: int, initial: int) -> Parts:
    adapters = config.learner.lora.is_on
    parts = {"parameters": 4 * elements, "optimizer": 8 * trained}
    if adapters:  # frozen weights stay as stored where the passes have that type
        frozen = max(ELEMENT[config.learner.param_dtype] * elements, min(4 * elements, initial))
        parts |= {"parameters": frozen, "adapter": 4 * trained}
    if config.keeps_teacher:
        parts["teacher"] = 4 * trained
    if _keeps_initial(config):
        parts["reference"] = initial
    return parts


def trained_elements(config: TrainConfig, shape: ModelShape) -> int:
    """Trained elements on the fullest rank: all, or those of the adapters."""
    lora, ranks = config.learner.lora, config.learner.ranks
    if lora.rank is None:
        return shape.elements(ranks)
    taken = [(outputs, inputs) for name, outputs, inputs in shape.linear if lora.takes(name)]
    return sum(-(-lora.rank // ranks) * inputs + -(-outputs // ranks) * lora.rank for outputs, inputs in taken)


def rank_memory(config: TrainConfig, shape: ModelShape, live: Activations | None) -> RankMemory:
    """live: of the largest micro-batch; None: not known, and left out."""
    trained, element = trained_elements(config, shape), ELEMENT[config.learner.param_dtype]
    lasting = lasting_parts(config, shape)
    gradients = {"gradients": 4 * trained}
    groups = shape.group_elements()
    pair = max(map(sum, pairwise(groups)))
    gathered = element * (pair + max(groups))  # two groups, and the flat buffer of the one that arrives
    reduced = element * max(groups) + 4 * pair  # gradients of one group, flat copies of it and of the one before
    if config.learner.lora.is_on:  # of adapters, which are gathered with the layers that they belong to
        layer = trained * config.learner.ranks // shape.layers
        gathered, reduced = gathered + 3 * element * layer, (element + 8) * layer
    moments: dict[str, Parts] = {}
    away = offloaded(config)
    if config.has_kl_term:
        aside = {} if reference_pass(config) in away else {"policy set aside": 4 * trained}
        moments["reference pass"] = lasting | aside | {"gathered": gathered}
        if live is not None:
            moments["reference pass"]["activations"] = live.without_gradient
    moments["head"] = lasting | gradients | {"gathered": gathered}
    moments["layers"] = lasting | gradients | {"gathered": gathered + reduced}
    if live is not None:
        moments["head"] |= {"activations": live.kept, "head": live.head}
        moments["layers"] |= {"activations": live.kept + live.layer}
    streamed = {"streamed": _streamed(config, trained)} if "optimizer" in away else {}
    moments["optimizer step"] = lasting | gradients | streamed
    elements = shape.elements(config.learner.ranks)
    host = _on_host(config, _state(config, elements, trained, shape.stored_bytes * elements), trained)
    return RankMemory(moments=moments, lasting=lasting, host=host)


def engine_memory(config: TrainConfig, source: Source, shape: ModelShape) -> EngineMemory | None:
    """None for an engine that holds no model on its node."""
    engine = config.engine_of(source)
    kind = ENGINES[engine.kind]
    if not kind.has_model_logprobs or engine.url is not None:
        return None
    element = ELEMENT[engine.dtype]
    weights = int(
        shape.num_parameters * (element if engine.quantization is None else QUANTIZED) / engine.tensor_parallel
    )
    longest = engine.max_model_len or config.longest_sequence
    kv_token = shape.kv_token_bytes(element) / min(engine.tensor_parallel, shape.kv_heads)
    parts = {"weights": weights, "sampling": 8 * engine.slots * shape.vocab}  # logits, and once more in float32
    fills = kind.takes_memory_fraction and config.rollout.gpus_per_actor > 0 and engine.kv_cache_mb is None
    if not kind.takes_memory_fraction:  # new weights are staged beside those in use, on the same device
        parts |= {"staged weights": weights, "prefill": int(kv_token * max(engine.prefill_tokens, longest))}
    if not fills:
        cache = kv_token * engine.slots * longest if engine.kv_cache_mb is None else engine.kv_cache_mb * 2**20
        parts["KV cache"] = int(cache)
    return EngineMemory(parts=parts, kv_token=kv_token, longest=longest, slots=engine.slots, fills=fills)
