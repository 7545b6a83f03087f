"""Prints a plan: tables, and sentences that say what fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from corewarding.launch.plan.fit import Change, Fit, MemoryPlan
from corewarding.launch.plan.memory import CONTEXT, GB, EngineMemory, RankMemory, total

MB = 10**6


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


def verdicts(fits: Sequence[Fit]) -> list[str]:
    """A sentence for each kind of process."""
    return [
        f"{fit.what}: fits, {in_gb(fit.needs)} of {in_gb(fit.has)} ({fit.key})"
        if fit.fits
        else f"{fit.what}: does not fit, it needs {in_gb(fit.needs)} and has {in_gb(fit.has)} ({fit.key}); {remedy_words(fit.remedy)}"
        for fit in fits
    ]


def remedy_words(change: Change | None) -> str:
    if change is None:
        return "no change of a key makes it fit: take a smaller model, or a GPU with more memory"
    return "the nearest change that makes it fit: " + " ".join(
        f"{key}={_value(value)}" for key, value in change.items()
    )


def in_gb(num_bytes: float) -> str:
    return f"{num_bytes / GB:.1f} GB" if num_bytes >= GB else f"{num_bytes / MB:.1f} MB"


def as_json(plan: MemoryPlan, fits: Sequence[Fit]) -> dict[str, Any]:
    """The numbers of the tables, in bytes."""
    return {
        "model": plan.model.name,
        "num_parameters": plan.model.shape.num_parameters,
        "rank": {"peak": plan.rank.peak, "moment": plan.rank.fullest, "moments": plan.rank.moments},
        "engines": {
            source: {"parts": one.parts, "kv_token": one.kv_token, "longest_tokens": one.longest}
            for source, one in plan.engines.items()
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
            for fit in fits
        ],
    }


def _unit(size: int) -> int:
    return GB if size >= GB else MB


def _name(unit: int) -> str:
    return "GB" if unit == GB else "MB"


def _number(size: int, unit: int) -> str:
    return f"{size / unit:,.2f}"


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
