"""Whether a run fits its GPUs, and the nearest change of its configuration that makes it fit.

The changes are tried in the order of what they cost: first those that only cut the same work into smaller pieces, then those that
compute something twice or round, then state in the host's memory, then more GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any

from corewarding.actors.engines import ENGINES
from corewarding.dataflow.errors import UserError
from corewarding.dataflow.ids import Source
from corewarding.launch.config.load import make_config
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.plan.memory import (
    CONTEXT,
    EngineMemory,
    RankMemory,
    engine_memory,
    micro_batch_tokens,
    offloadable,
    rank_memory,
    rank_on_gpu,
)
from corewarding.launch.plan.model import PlannedModel
from corewarding.launch.plan.trace import Activations, activations

Change = dict[str, Any]
"""New values by key."""
SMALLEST_CHUNK, MOST_RANKS = 256, 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One kind of process against its share of a GPU."""

    what: str  # learner rank, policy engine, teacher engine
    needs: int
    has: int
    key: str  # with its value: how much it has
    remedy: Change | None = None  # None: it fits, or no change that is known makes it fit

    @property
    def fits(self) -> bool:
        return self.needs <= self.has


class MemoryPlan:
    """The memory of every kind of process of a run."""

    def __init__(self, config: TrainConfig, model: PlannedModel) -> None:
        self.config, self.model = config, model
        self._traced = lru_cache(maxsize=None)(self._trace)
        self.rank = self._rank(config)
        self.engines = self._engines(config)

    @property
    def unknown(self) -> bool:
        """Whether activations could not be traced."""
        return "activations" not in self.rank.moments["layers"]

    def fits(self, gpu: int) -> list[Fit]:
        """gpu: bytes of each GPU's memory. Processes on the CPU are not judged."""
        found = self._judged(self.config, gpu)
        kept = {fit.what for fit in found if fit.fits}

        def mends(what: str) -> Callable[[TrainConfig], bool]:
            def good(changed: TrainConfig) -> bool:
                if rank_memory(changed, self.model.shape, None).peak > _rank_share(changed, gpu) and "learner rank" in {
                    what,
                    *kept,
                }:
                    return False  # without looking at activations
                return {what, *kept} <= {fit.what for fit in self._judged(changed, gpu) if fit.fits}

            return good

        changes = {"learner rank": rank_changes, "policy engine": engine_changes, "teacher engine": engine_changes}
        return [
            fit
            if fit.fits
            else replace(fit, remedy=nearest(self.config, changes[fit.what](self.config), mends(fit.what)))
            for fit in found
        ]

    def _judged(self, config: TrainConfig, gpu: int) -> list[Fit]:
        found = []
        if rank_on_gpu(config):
            key = f"learner.gpus_per_rank {config.learner.gpus_per_rank:g}"
            needs, has = self._rank(config).peak, _rank_share(config, gpu)
            found.append(Fit(what="learner rank", needs=needs, has=has, key=key))
        if config.rollout.gpus_per_actor > 0:
            for source, memory in self._engines(config).items():
                share, key = engine_share(config, source)
                has = int(share * gpu) - CONTEXT
                found.append(Fit(what=f"{source} engine", needs=memory.needs, has=has, key=key))
        return found

    def _rank(self, config: TrainConfig) -> RankMemory:
        its = config.learner
        tokens = micro_batch_tokens(config)
        live = self._traced(its.param_dtype, tokens, its.logprob_chunk_tokens, its.activation_checkpointing)
        return rank_memory(config, self.model.shape, live)

    def _engines(self, config: TrainConfig) -> dict[Source, EngineMemory]:
        sources: tuple[Source, ...] = ("policy", "teacher") if config.reward_rule.needs_teacher else ("policy",)
        found = {source: engine_memory(config, source, self.model.shape) for source in sources}
        return {source: one for source, one in found.items() if one is not None}

    def _trace(self, dtype: str, tokens: int, chunk: int, checkpointing: bool) -> Activations | None:
        return activations(self.model.config, dtype=dtype, tokens=tokens, chunk=chunk, checkpointing=checkpointing)


def _rank_share(config: TrainConfig, gpu: int) -> int:
    """Bytes of a GPU that a rank may fill."""
    return int(min(1.0, config.learner.gpus_per_rank or 1.0) * gpu) - CONTEXT


def engine_share(config: TrainConfig, source: Source) -> tuple[float, str]:
    """The share of a GPU that an engine may fill, and the key that says so."""
    engine, actor = config.engine_of(source), min(1.0, config.rollout.gpus_per_actor)
    if ENGINES[engine.kind].takes_memory_fraction and engine.memory_fraction <= actor:
        return engine.memory_fraction, f"engine.memory_fraction {engine.memory_fraction:g}"
    return actor, f"rollout.gpus_per_actor {config.rollout.gpus_per_actor:g}"


def nearest(config: TrainConfig, changes: Iterator[Change], good: Callable[[TrainConfig], bool]) -> Change | None:
    """The first change with which the configuration is valid and good."""
    for change in changes:
        changed = changed_by(config, change)
        if changed is not None and good(changed):
            return change
    return None


def changed_by(config: TrainConfig, change: Change) -> TrainConfig | None:
    """None if the configuration refuses the new values."""
    content = config.model_dump()
    for key, value in change.items():
        section, name = key.split(".")
        content[section] = content[section] | {name: value}
    try:
        return make_config(content, where="plan")
    except UserError:
        return None


def rank_changes(config: TrainConfig) -> Iterator[Change]:
    """Changes of the learner: each by itself, then two together, then a larger share of the GPU, then state in the host's memory, then
    more ranks with as few others as possible."""
    learner = config.learner
    tokens = _halvings("learner.micro_batch_tokens", learner.micro_batch_tokens, config.longest_sequence)
    chunks = _halvings("learner.logprob_chunk_tokens", learner.logprob_chunk_tokens, SMALLEST_CHUNK)
    again: list[Change] = [] if learner.activation_checkpointing else [{"learner.activation_checkpointing": True}]
    rounded: list[Change] = [] if learner.param_dtype == "bfloat16" else [{"learner.param_dtype": "bfloat16"}]
    for ladder in (tokens, chunks, again, rounded):
        yield from ladder
    for one, other in ((tokens, chunks), (again, tokens), (again, chunks), (rounded, tokens)):
        yield from (a | b for a, b in product(one, other))
    yield from _shares(config)
    away = _offloads(config)
    yield from away
    least: Change = {}
    for ladder in (again, rounded, tokens, chunks):
        least |= ladder[-1] if ladder else {}
    yield from (least | more for more in ({}, *away))
    ranks: list[Change] = [{"learner.ranks": num} for num in _more(learner.ranks)]
    yield from ranks
    yield from (least | num for num in ranks)


def _shares(config: TrainConfig) -> Iterator[Change]:
    """On a GPU that rank and engines share: more of it for the rank, and less for the engines' KV cache."""
    rank, actor = config.learner.gpus_per_rank, config.rollout.gpus_per_actor
    engines = int((1 - rank) / actor + 1e-6) if 0 < rank < 1 and 0 < actor < 1 else 0
    for step in range(1, 10 if engines else 0):
        larger = round(rank + 0.05 * step, 2)
        smaller = int((1 - larger) / engines * 100) / 100
        fraction = round(config.engine.memory_fraction - (actor - smaller), 2)
        if smaller > 0 and fraction > 0:
            yield {
                "learner.gpus_per_rank": larger,
                "rollout.gpus_per_actor": smaller,
                "engine.memory_fraction": fraction,
            }


def _offloads(config: TrainConfig) -> list[Change]:
    """More and more of a rank's state in the host's memory; first what saves most for what it costs."""
    there = config.learner.offload
    more = [part for part in offloadable(config) if part not in there]
    return [{"learner.offload": [*there, *more[: num + 1]]} for num in range(len(more))]


def engine_changes(config: TrainConfig) -> Iterator[Change]:
    """Changes of the engines: a smaller KV cache, fewer slots or prefilled tokens, bfloat16, a larger share, more GPUs."""
    engine, rollout = config.engine, config.rollout
    kind = ENGINES[engine.kind]
    slots = _halvings("engine.slots", engine.slots, 8)
    prefill = _halvings("engine.prefill_tokens", engine.prefill_tokens, config.longest_sequence)
    cache = [] if engine.kv_cache_mb is None else _halvings("engine.kv_cache_mb", engine.kv_cache_mb, 1)
    rounded: list[Change] = [] if engine.dtype == "bfloat16" else [{"engine.dtype": "bfloat16"}]
    for ladder in (cache, slots, prefill, rounded):
        yield from ladder
    yield from (a | b for a, b in product(slots, rounded))
    if kind.takes_memory_fraction and rollout.gpus_per_actor >= 1 and engine.memory_fraction < 0.9:
        yield {"engine.memory_fraction": 0.9}
    if kind.tensor_parallel:
        for num in (2, 4, 8, 16):
            if num > engine.tensor_parallel:
                yield {"engine.tensor_parallel": num, "rollout.gpus_per_actor": num}


def _halvings(key: str, value: int, least: int) -> list[Change]:
    found = []
    while value // 2 >= least:
        value //= 2
        found.append({key: value})
    return found


def _more(ranks: int) -> Iterator[int]:
    """More ranks: one by one up to 8, then whole nodes of 8."""
    yield from range(ranks + 1, 9)
    yield from range(max(16, -(-(ranks + 1) // 8) * 8), MOST_RANKS + 1, 8)
