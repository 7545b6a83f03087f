"""How fast a run will be: what it consists of, rates stated from a GPU's data sheet, and the bytes of a publication."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log

from corewarding.actors.engines import ENGINES
from corewarding.dataflow.ids import Source
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.plan.gpus import Gpu
from corewarding.launch.plan.memory import (
    ELEMENT,
    QUANTIZED,
    offloaded,
    rank_on_gpu,
    reference_pass,
    trained_elements,
)
from corewarding.launch.plan.simulation import Device, Forecast, Group, Rates, Simulation, System
from corewarding.launch.run.plans import admission_limits
from corewarding.launch.run.preflight.needs import weight_backend
from corewarding.weights.model_shape import ModelShape

UPDATES, WARM_UP = 16, 5
"""Updates that a forecast makes, and those of them that it does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumed:
    """What a data sheet does not say. Each number is an assumption, and printed with the forecast."""

    mfu: float = 0.30  # share of the peak that the learner's forward and backward passes reach
    bandwidth_share: float = 0.6  # of its memory's bandwidth that a decoding engine reaches
    decode_flops_share: float = 0.5  # of the peak that the products of a large batch reach
    link_share: float = 0.6  # of the link between GPUs that a broadcast reaches
    host_bytes_s: float = 20e9  # from host to GPU memory, pinned (PCIe 4 or 5 with 16 lanes)
    socket_bytes_s: float = 1e9  # gloo over sockets
    mean_length: float = 0.27  # mean completion as a share of rollout.max_new_tokens: 830 of 3,072
    turn_s: float = 0.05  # from the last sample to the update's begin


def publication_bytes(config: TrainConfig, shape: ModelShape) -> dict[Source, int]:
    """Bytes of one publication on each channel: every parameter once, tied ones together, in the engines' number format."""
    sources: tuple[Source, ...] = ("policy", "teacher") if config.reward_rule.needs_teacher else ("policy",)
    return {source: shape.num_parameters * ELEMENT[config.engine_of(source).dtype] for source in sources}


def system_of(config: TrainConfig, *, cores: int, updates: int = UPDATES) -> System:
    """The run as a simulation takes it, with this many updates. cores: of a machine whose CPUs compute."""
    rule, rollout = config.reward_rule, config.rollout
    groups = tuple(
        Group(
            source=kind[1],
            size=config.sampled_size(kind),
            trained=rollout.group_size if kind in rule.trained else 0,
        )
        for kind in rule.groups
    )
    actors: dict[Source, int] = {"policy": rollout.policy_actors}
    if rule.needs_teacher:
        actors["teacher"] = max(1, rollout.teacher_actors)
    return System(
        limits=replace(admission_limits(config), total_updates=updates),
        groups=groups,
        actors=actors,
        slots=config.engine.slots,
        ranks=config.learner.ranks,
        devices=devices_of(config, cores=cores),
    )


def devices_of(config: TrainConfig, *, cores: int) -> dict[str, Device]:
    """The device of the learner and of each source's engines."""
    rollout = config.rollout
    shared = 0 < rollout.gpus_per_actor < 1 and 0 < config.learner.gpus_per_rank < 1
    found = {
        "learner": _device("learner", rank_on_gpu(config), shared, config.learner.ranks, config.learner.cores, cores)
    }
    for source in ("policy", "teacher"):
        engine = config.engine_of(source)
        found[source] = _device(source, rollout.gpus_per_actor > 0, shared, config.learner.ranks, engine.cores, cores)
    return found


def _device(kind: str, on_gpu: bool, shared: bool, ranks: int, pinned: tuple[int, ...] | None, cores: int) -> Device:
    if on_gpu:
        return Device("shared GPUs", float(ranks)) if shared else Device(f"{kind}'s GPUs")
    return Device("cores", float(cores)) if pinned is None else Device(f"cores {pinned}", float(len(pinned)))


def stated_rates(config: TrainConfig, shape: ModelShape, gpu: Gpu, assumed: Assumed = Assumed()) -> Rates:
    """Rates of a run whose processes all have GPUs of this kind.

    A token costs 6 N in forward and backward pass (arXiv 2001.08361), 2 N more for the reference and for recomputed layers each, and
    attention over what it sees. A decoding step reads the weights once, and for each sequence its keys and values.
    """
    rollout, engine, learner = config.rollout, config.engine, config.learner
    completion = max(1, round(assumed.mean_length * rollout.max_new_tokens))
    prompt = max(1, config.data.max_prompt_tokens // 4)
    passes = 6 + 2 * learner.activation_checkpointing + 2 * config.has_kl_term
    seen = prompt + completion / 2
    flops = passes * (shape.num_active + 2 * shape.layers * shape.heads * shape.head_dim * seen)
    element = ELEMENT[engine.dtype] if engine.quantization is None else QUANTIZED
    gpus = engine.tensor_parallel
    bandwidth = assumed.bandwidth_share * gpu.bandwidth * gpus
    decode = 2 * shape.num_active / (assumed.decode_flops_share * gpu.bf16_flops * gpus)
    cache = shape.kv_token_bytes(ELEMENT[engine.dtype]) * seen / bandwidth
    publish_s, acknowledge_s = publication_s(config, shape, gpu, assumed)
    return Rates(
        update_s=offload_s(config, shape, assumed),
        token_s=flops / (assumed.mfu * gpu.bf16_flops * learner.ranks),
        step_s=shape.num_active * element / bandwidth,
        sequence_s=decode + cache,
        publish_s=publish_s,
        acknowledge_s=acknowledge_s,
        turn_s=assumed.turn_s,
        lengths={
            "policy": _lengths(completion, rollout.max_new_tokens),
            "teacher": _lengths(completion, rollout.max_new_tokens),
        },
        prompts=(prompt,),
    )


def offload_s(config: TrainConfig, shape: ModelShape, assumed: Assumed = Assumed()) -> float:
    """Seconds of an update in which a rank waits for what learner.offload names. What is streamed arrives and leaves at the same time;
    for the pass of a reference the policy leaves, the reference arrives, and the policy comes back. A digest reads the teacher."""
    away, trained = offloaded(config), trained_elements(config, shape)
    moved = 8.0 * trained * ("optimizer" in away)
    if "teacher" in away and not config.teacher.freeze:
        moved += 4 * trained / config.teacher.update_every
    if "teacher" in away and config.keeps_journal:
        moved += 4 * trained
    which = reference_pass(config)
    if which in away:
        initial = shape.stored_bytes * shape.elements(config.learner.ranks)
        moved += 8 * trained + (4 * trained if which == "teacher" else initial)
    return moved / assumed.host_bytes_s


def publication_s(config: TrainConfig, shape: ModelShape, gpu: Gpu, assumed: Assumed) -> tuple[float, float]:
    """Seconds until the weights of all channels have left the learner, and until the engines have them.

    Weights leave at the speed of the link; vLLM and SGLang keep them in host memory and copy them in once they are whole.
    """
    total = sum(publication_bytes(config, shape).values())
    backend = config.publish.backend if config.publish.backend != "auto" else weight_backend(config)
    speed = {"nccl": assumed.link_share * gpu.link, "ipc": assumed.link_share * gpu.bandwidth}.get(
        backend, assumed.socket_bytes_s
    )
    staged = any(
        ENGINES[config.engine_of(source).kind].takes_memory_fraction for source in publication_bytes(config, shape)
    )
    if staged:
        speed = min(speed, assumed.host_bytes_s)
    largest = max(publication_bytes(config, shape).values())
    commit = largest / (assumed.host_bytes_s * config.engine.tensor_parallel) if staged else 0.0
    return total / speed, total / speed + commit


def forecast(
    config: TrainConfig, rates: Rates, *, cores: int, updates: int = UPDATES, warm_up: int = WARM_UP
) -> Forecast:
    """The simulated run of this configuration at these rates."""
    lengths = dict(rates.lengths)
    lengths.setdefault("teacher", lengths["policy"])  # rates of a run without one
    return Simulation(system_of(config, cores=cores, updates=updates), replace(rates, lengths=lengths)).forecast(
        warm_up=warm_up
    )


def _lengths(mean: int, most: int) -> tuple[int, ...]:
    """101 lengths of an exponential distribution with this mean, cut at the longest."""
    return tuple(min(most, max(1, round(-mean * log(1 - (index + 0.5) / 101)))) for index in range(101))
