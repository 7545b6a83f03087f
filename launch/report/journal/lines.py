"""The lines of `corewarding journal RUN`: the starts, a line for each completion or question as it left the buffer, the tally."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from corewarding.launch.report.journal.departures import Departure, Left
from corewarding.launch.report.journal.fates import Fates
from corewarding.launch.report.journal.selection import Selection
from corewarding.launch.report.journal.survey import Started, survey
from corewarding.launch.report.plain import plain
from corewarding.launch.report.tables.output import json_line
from corewarding.learner.replay.journal.segments import JournalError, Torn
from corewarding.learner.replay.ledger import LedgerError

MAX_ANSWER = 60
"""Letters of an answer in a line."""


def journal_lines(
    folder: Path,
    *,
    by: Literal["completion", "question"] = "completion",
    selection: Selection | None = None,
    limit: int | None = None,
    as_json: bool = False,
) -> Iterator[str]:
    """limit: the most lines of completions or questions. JournalError for a journal that is damaged or empty."""
    found, selected = survey(folder), selection or Selection()
    if not found.starts:
        raise JournalError(
            f"{folder} holds no start of a run: the run was stopped before it asked a question; resume it"
        )
    starts = [_start(one, is_first=one.start.updates == 0 and one is found.starts[0]) for one in found.starts]
    for row, words in chain(starts, map(_torn, found.torn)):
        yield _written(row, words, as_json)
    fates, num = Fates(folder, found), 0
    for row, words in _rows(fates, by, selected):
        num += 1
        if limit is None or num <= limit:
            yield _written(row, words, as_json)
    if limit is not None and num > limit:
        yield _written({"kind": "left_out", "num": num - limit}, f"{num - limit} more lines (--limit {limit})", as_json)
    yield _written(*_tally(fates), as_json)


def _written(row: dict[str, Any], words: str, as_json: bool) -> str:
    return json_line(row) if as_json else words


def _rows(fates: Fates, by: str, selected: Selection) -> Iterator[tuple[dict[str, Any], str]]:
    for departure in fates:
        if by == "completion":
            yield from map(_completion, selected.completions(departure))
        elif selected.is_shown(departure):
            yield _question(departure)


def _start(started: Started, *, is_first: bool) -> tuple[dict[str, Any], str]:
    start, again = started.start, started.again
    row = {
        "kind": "start",
        "time_s": start.time_s,
        "after_update": start.updates,
        "incarnation": start.incarnation,
        "goes_on": start.goes_on,
        "again": again,
    }
    words = f"start {_time(start.time_s)}  after update {start.updates}  incarnation {start.incarnation}"
    words += (
        "  goes on with the journal"
        if start.goes_on
        else "  from the beginning"
        if is_first
        else "  what waited is lost"
    )
    if again is not None:
        words += f"; update{'s' if again[1] > again[0] else ''} {_range(*again)} made again"
    return row, words


def _time(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError) as error:
        raise JournalError(f"the journal holds a start at no time: {seconds}") from error


def _torn(torn: Torn) -> tuple[dict[str, Any], str]:
    row = {"kind": "torn", "file": torn.path.name, "whole": torn.whole, "cut": torn.cut}
    return row, f"{torn.path.name}: the last {torn.cut} bytes are an unfinished record, left out"


def _completion(left: Left) -> tuple[dict[str, Any], str]:
    one = left.completion
    row = {
        "kind": "completion",
        "id": str(one.id),
        "fate": left.fate,
        "reason": left.reason,
        "update": left.update,
        "versions": one.versions,
        "num_tokens": one.num_tokens,
        "answer": one.answer,
        "label": left.label,
        "reward": left.reward,
        "advantage": left.advantage,
        "actor": one.actor,
        "made_again": left.made_again,
    }
    fields = [
        _shown(str(one.id), None),
        _became(left),
        f"weights {_range(*one.versions)}",
        f"{one.num_tokens} tokens",
        "no answer" if one.answer is None else f"answer {_shown(one.answer)}",
        "" if left.label is None else f"label {_shown(left.label)}",
        "" if left.reward is None else f"reward {left.reward:.2f}",
        "" if left.advantage is None else f"advantage {left.advantage:+.2f}",
        f"actor {_shown(one.actor)}",
    ]
    return row, "  ".join(filter(None, fields))


def _question(departure: Departure) -> tuple[dict[str, Any], str]:
    left = [one for one in departure.left if one.made_again == departure.made_again]
    groups = Counter(f"{one.completion.id.view}/{one.completion.id.source}" for one in left)
    labels = list(dict.fromkeys(one.label for one in left if one.label is not None))
    rewards = [one.reward for one in left if one.reward is not None]
    became = Counter(one.fate if one.reason is None else one.reason for one in left)
    mean = sum(rewards) / len(rewards) if rewards else None
    row = {
        "kind": "question",
        "id": str(departure.asked),
        "fate": departure.fate,
        "reason": departure.reason,
        "update": departure.update,
        "groups": groups,
        "completions": became,
        "labels": labels,
        "reward": mean,
        "made_again": departure.made_again,
    }
    fields = [
        _shown(str(departure.asked), None),
        _became(departure),
        ", ".join(f"{name} {num}" for name, num in sorted(groups.items())) or "no group",
        ", ".join(f"{num} {name}" for name, num in became.items()) if departure.fate != "waiting" else "",
        f"label {', '.join(map(_shown, labels))}" if labels else "",
        "" if mean is None else f"reward {mean:.2f}",
    ]
    return row, "  ".join(filter(None, fields))


def _became(one: Left | Departure) -> str:
    words = one.fate if one.reason is None else f"{one.fate}: {one.reason}"
    if one.update is not None:
        words += f" in update {one.update}"
    return f"{words} (made again)" if one.made_again else words


def _tally(fates: Fates) -> tuple[dict[str, Any], str]:
    ledger, waiting = fates.ledger, fates.num_waiting
    try:
        ledger.check(waiting)
    except LedgerError as error:
        raise JournalError(
            f"the journal's counts do not add up: {error}; files are missing, or it was changed"
        ) from error
    dropped = {str(reason): num for reason, num in sorted(ledger.dropped.items()) if num}
    unlisted = ledger.generated - fates.num_listed
    row = {
        "kind": "tally",
        "generated": ledger.generated,
        "trained": ledger.trained,
        "voted": ledger.voted_only,
        "withheld": ledger.withheld,
        "dropped": dropped,
        "waiting": waiting,
        "unlisted": unlisted,
    }
    by_reason = f" ({', '.join(f'{reason} {num}' for reason, num in dropped.items())})" if dropped else ""
    words = (
        f"generated {ledger.generated} = trained {ledger.trained} + voted {ledger.voted_only} + withheld {ledger.withheld} + "
        f"dropped {sum(dropped.values())}{by_reason} + waiting {waiting}"
    )
    return row, words + (f"; {unlisted} of them left before the journal begins" if unlisted else "")


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _shown(text: str, most: int | None = MAX_ANSWER) -> str:
    """Text from outside in one line."""
    short = text if most is None or len(text) <= most else text[:most] + "..."
    return plain(short, keep="")
