"""Prints a plan: tables, and sentences that say what fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from corewarding.dataflow.ids import Source
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.plan.fit import Change, Fit, MemoryPlan, engine_share
from corewarding.launch.plan.memory import CONTEXT, GB, MB, EngineMemory, RankMemory, in_gb, rank_on_gpu, total
from corewarding.launch.plan.simulation import Forecast, Rates
from corewarding.launch.plan.speed import Assumed
from corewarding.launch.report.plain import say


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that is known before a run."""

    config: TrainConfig
    memory: MemoryPlan
    gpu: int | None  # bytes of a GPU's memory; None: not known
    fits: tuple[Fit, ...]
    publication: Mapping[Source, int]  # bytes on each channel
    rates: Rates | None  # None: not known
    forecast: Forecast | None
    is_measured: bool  # rates are of recorded runs


def rank_table(rank: RankMemory, *, ranks: int, device: str) -> Table:
    """A row for each part, a column for each moment of an update."""
    unit = _unit(rank.peak)
    title = f"Memory of a learner rank ({ranks} in all, {device}), in {_name(unit)}"
    table = Table("part", title=title, title_justify="left", show_footer=True)
    table.columns[0].footer = "sum"
    for moment, parts in rank.moments.items():
        mark = " *" if moment == rank.fullest else ""
        table.add_column(moment + mark, footer=_number(total(parts), unit) + mark, justify="right")
    for part in dict.fromkeys(part for parts in rank.moments.values() for part in parts):
        cells = (parts.get(part) for parts in rank.moments.values())
        table.add_row(part, *("" if size is None else _number(size, unit) for size in cells))
    return table


def host_words(rank: RankMemory) -> str:
    """What a rank needs of the host's memory, because learner.offload names it."""
    parts = ", ".join(f"{part} {in_gb(size)}" for part, size in rank.host.items())
    return f"learner.offload: each learner rank keeps {in_gb(total(rank.host))} in the memory of its host ({parts})"


def engine_table(engines: Mapping[Any, EngineMemory], shares: Mapping[Any, int | None]) -> Table:
    """A row for each part, a column for each source. shares: bytes of a GPU that each may fill; None: not known."""
    unit = _unit(max(total(one.parts) for one in engines.values()))
    table = Table("part", title=f"Memory of an engine, on each of its devices, in {_name(unit)}", title_justify="left")
    for source in engines:
        table.add_column(source, justify="right")
    for part in dict.fromkeys(part for one in engines.values() for part in one.parts):
        table.add_row(part, *(_number(one.parts[part], unit) if part in one.parts else "" for one in engines.values()))
    if any(one.fills for one in engines.values()):
        left = [_left(one, shares[source]) for source, one in engines.items()]
        table.add_row("KV cache: the rest", *("" if size is None else _number(size, unit) for size in left))
    fitting = [_sequences(one, shares[source]) for source, one in engines.items()]
    table.add_row("sequences of full length", *("" if num is None else f"{num:,}" for num in fitting))
    return table


def _left(one: EngineMemory, share: int | None) -> int | None:
    return None if share is None or not one.fills else max(0, share - CONTEXT - total(one.parts))


def _sequences(one: EngineMemory, share: int | None) -> int | None:
    cache = _left(one, share) if one.fills else one.parts["KV cache"]
    return None if cache is None else int(cache / (one.kv_token * one.longest) + 1e-9)


def verdict(fit: Fit) -> str:
    """One sentence."""
    if fit.fits:
        return f"{fit.what} fits: {in_gb(fit.needs)} of {in_gb(fit.has)} ({fit.key})"
    return f"{fit.what} does not fit: it needs {in_gb(fit.needs)} and has {in_gb(fit.has)} ({fit.key}); {remedy_words(fit.remedy)}"


def remedy_words(change: Change | None) -> str:
    if change is None:
        return "no change of a key makes it fit: take a smaller model, or a GPU with more memory"
    return "the nearest change that makes it fit: " + " ".join(
        f"{key}={_value(value)}" for key, value in change.items()
    )


def forecast_table(plan: Plan) -> Table:
    """What the simulation found."""
    found, rates, config = plan.forecast, plan.rates, plan.config
    assert found is not None
    assert rates is not None
    source = "rates of the recorded runs" if plan.is_measured else "data sheet and assumed shares of it"
    table = Table("forecast", title=f"Speed, simulated with {source}", title_justify="left")
    table.add_column("", justify="right")
    table.add_row("seconds per update", f"{1 / found.updates_per_s:,.2f}")
    table.add_row("of these: the update itself", f"{found.update_s:,.2f}")
    table.add_row("of these: the learner waits for samples", f"{found.wait_s:,.2f}")
    table.add_row("of these: weights leave the learner", f"{rates.publish_s:,.2f}")
    table.add_row("hours for train.updates", f"{config.train.updates / found.updates_per_s / 3600:,.1f}")
    table.add_row("trained completions per second", f"{found.completions_per_s:,.1f}")
    for one, tokens in found.tokens_per_s.items():
        table.add_row(f"tokens per second, {one} engines", f"{tokens:,.0f}")
    table.add_row("staleness of a question, mean, in updates", f"{found.staleness_mean:.2f}")
    table.add_row("idle share of the learner", f"{found.learner_idle:.0%}")
    for one, idle in found.engines_idle.items():
        table.add_row(f"idle share of the {one} engines", f"{idle:.0%}")
    return table


def publication_words(plan: Plan) -> str:
    """Bytes, and seconds where rates are known."""
    words = ", ".join(f"{in_gb(size)} to the {source} engines" for source, size in plan.publication.items())
    rates = plan.rates
    seconds = (
        ""
        if rates is None
        else f"; the learner waits {rates.publish_s:.2f} s, engines have it after {rates.acknowledge_s:.2f} s"
    )
    return f"weights per publication: {words}{seconds}"


def assumptions() -> str:
    """What is assumed where nothing was measured."""
    its = Assumed()
    return (
        f"assumed: {its.mfu:.0%} of the peak in the learner; {its.bandwidth_share:.0%} of the bandwidth and "
        f"{its.decode_flops_share:.0%} of the peak while decoding; {its.link_share:.0%} of the link; mean completion "
        f"{its.mean_length:.0%} of rollout.max_new_tokens. --rates RUN takes measured ones instead"
    )


def show(plan: Plan, console: Console) -> None:
    """Prints all of it."""
    config, memory = plan.config, plan.memory
    say(f"model: {memory.model.name}; {memory.model.shape.num_parameters:,} parameters")
    on_gpu = rank_on_gpu(config)
    console.print(rank_table(memory.rank, ranks=config.learner.ranks, device="on a GPU" if on_gpu else "on the CPU"))
    if memory.rank.host:
        say(host_words(memory.rank))
    if memory.engines:
        shares = {
            source: None if plan.gpu is None else int(engine_share(config, source)[0] * plan.gpu)
            for source in memory.engines
        }
        console.print(engine_table(memory.engines, shares))
    if memory.unknown:
        say("activations are not counted: a shape in this model depends on values")
    for fit in plan.fits:
        say(verdict(fit))
    if plan.gpu is None and on_gpu:
        say("no GPU is known here: name one with --gpu, for example --gpu H100")
    say(publication_words(plan))
    if plan.forecast is not None:
        console.print(forecast_table(plan))
        if not plan.is_measured:
            say(assumptions())
    else:
        say("no forecast of speed: give --rates RUN, a recorded run with this model, or --gpu for a run on GPUs")


def as_json(plan: Plan) -> dict[str, Any]:
    """The numbers of the tables: bytes, seconds, shares."""
    memory = plan.memory
    return {
        "model": memory.model.name,
        "num_parameters": memory.model.shape.num_parameters,
        "rank": {
            "peak": memory.rank.peak,
            "moment": memory.rank.fullest,
            "moments": memory.rank.moments,
            "host": memory.rank.host,
        },
        "engines": {
            source: {"parts": one.parts, "kv_token": one.kv_token, "longest_tokens": one.longest}
            for source, one in memory.engines.items()
        },
        "fits": [
            {
                "what": fit.what,
                "fits": fit.fits,
                "needs": fit.needs,
                "has": fit.has,
                "key": fit.key,
                "remedy": fit.remedy,
            }
            for fit in plan.fits
        ],
        "publication_bytes": dict(plan.publication),
        "forecast": None if plan.forecast is None else asdict(plan.forecast),
    }


def _unit(size: int) -> int:
    return GB if size >= GB else MB


def _name(unit: int) -> str:
    return "GB" if unit == GB else "MB"


def _number(size: int, unit: int) -> str:
    return f"{size / unit:,.2f}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
