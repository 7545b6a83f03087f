"""Which examples did two runs train on, in which update, and why not the same.

Both journals are read side by side, update by update; in memory are the examples that only one of them has trained on so far. The
rest is read in a second pass: what became of an example in the run that did not train on it.

A reason is a fact of the two journals, and it is looked for in this order of cause: which weights wrote the tokens, when a question
was complete, what became of a completion. What none of them explains is counted as such.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from corewarding.dataflow.ids import CompletionId
from corewarding.launch.report.journal.departures import Sampled
from corewarding.launch.report.journal.fates import Fates
from corewarding.launch.report.journal.survey import survey
from corewarding.launch.report.plain import plain
from corewarding.launch.report.tables.output import json_line
from corewarding.learner.replay.journal.history import History

KINDS = {
    "same": "in both, in the same update, with the same tokens",
    "other_tokens": "in both, in the same update, with other tokens",
    "other_update": "in both, in different updates",
    "only_run": "only in {run}",
    "only_other": "only in {other}",
}
UNEXPLAINED = "no reason in the journals: the configurations, packages or machines may differ"


@dataclass(frozen=True, slots=True)
class Example:
    """A completion that a run trained on."""

    sampled: Sampled
    update: int
    complete_for: int | None  # the update that was to be taken when its question was complete

    @property
    def id(self) -> CompletionId:
        return self.sampled.id


@dataclass(frozen=True, slots=True)
class Difference:
    """An example, in the runs that trained on it."""

    kind: str
    ours: Example | None
    theirs: Example | None
    reason: str | None  # None: there is no difference

    @property
    def id(self) -> CompletionId:
        example = self.ours or self.theirs
        assert example is not None
        return example.id


def difference_lines(
    run: Path, run_journal: Path, other: Path, other_journal: Path, *, limit: int, as_json: bool
) -> Iterator[str]:
    """The first differing examples, then the counts and reasons. limit: the most examples. JournalError for damage."""
    counts: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for one in differences(run_journal, other_journal):
        counts[one.kind] += 1
        if one.reason is not None:
            reasons[one.kind][one.reason] += 1
            if counts.total() - counts["same"] <= limit:
                yield _example(one, run, other, as_json)
    matched = counts["same"] + counts["other_tokens"] + counts["other_update"]
    trained = matched + counts["only_run"], matched + counts["only_other"]
    if as_json:
        row = {kind: counts[kind] for kind in KINDS}
        told = {kind: dict(several) for kind, several in reasons.items() if several}
        yield json_line({"kind": "difference", "run": trained[0], "other": trained[1], **row, "reasons": told})
        return
    yield plain(f"{run} trained on {trained[0]} examples, {other} on {trained[1]}", keep="")
    width = len(str(max(counts.values(), default=0)))
    for kind, words in KINDS.items():
        yield plain(f"{counts[kind]:>{width}}  {words.format(run=run, other=other)}", keep="")
        for reason, number in reasons[kind].most_common():
            yield f"{'':{width}}    {number:>{width}}  {reason}"


def differences(run: Path, other: Path) -> Iterator[Difference]:
    """All examples of either journal, each once."""
    weights_differ = _weights_differ(run, other)
    alone: tuple[list[Example], list[Example]] = [], []
    for ours, theirs in _pairs(run, other):
        if ours is not None and theirs is not None:
            kind = _kind(ours, theirs)
            yield Difference(kind, ours, theirs, _reason(kind, ours, theirs, weights_differ))
        elif ours is not None:
            alone[0].append(ours)
        elif theirs is not None:
            alone[1].append(theirs)
    there = _fates(other, {example.id for example in alone[0]})
    yield from (Difference("only_run", one, None, there[one.id]) for one in alone[0])
    here = _fates(run, {example.id for example in alone[1]})
    yield from (Difference("only_other", None, one, here[one.id]) for one in alone[1])


def _kind(ours: Example, theirs: Example) -> str:
    if ours.update != theirs.update:
        return "other_update"
    return "same" if ours.sampled.tokens == theirs.sampled.tokens else "other_tokens"


def _reason(kind: str, ours: Example, theirs: Example, weights_differ: int | None) -> str | None:
    """weights_differ: the first update after which the two runs' weights are not the same."""
    if kind == "same":
        return None
    if kind == "other_tokens":
        shorter = min(ours.sampled.num_tokens, theirs.sampled.num_tokens)
        if _swaps(ours.sampled, shorter) != _swaps(theirs.sampled, shorter):
            return "their tokens were written by weights of other updates"
        if weights_differ is not None and weights_differ <= ours.sampled.versions[1]:
            return (
                f"their tokens were written by weights of the same updates, which differ since update {weights_differ}"
            )
        return UNEXPLAINED
    earlier, later = sorted((ours, theirs), key=lambda example: example.update)
    if later.complete_for is None:
        return UNEXPLAINED
    if later.complete_for > earlier.update:
        return "the question was complete too late for the update that the other run had it in"
    return "the question was complete in both, and one run had filled that update with other questions"


def _swaps(sampled: Sampled, num_tokens: int) -> list[tuple[int, int]]:
    return [swap for swap in sampled.swaps if swap[0] < num_tokens]


def _weights_differ(run: Path, other: Path) -> int | None:
    """The first update after which the weights of two runs differ; None if those of all updates that both have made are equal."""
    ours, theirs = History.of(run).made, History.of(other).made
    both = sorted(ours.keys() & theirs.keys())
    return next((update for update in both if ours[update].digest != theirs[update].digest), None)


def _fates(journal: Path, wanted: set[CompletionId]) -> dict[CompletionId, str]:
    """What became of these completions in a run that did not train on them."""
    told = dict.fromkeys(wanted, "the other run had not sampled it when it ended")
    if not wanted:
        return told
    for departure in Fates(journal, survey(journal)):
        for left in departure.left:
            if left.completion.id in wanted and not left.made_again:
                reason = f" ({left.reason})" if left.reason is not None else ""
                told[left.completion.id] = f"{left.fate}{reason} in the other run"
    return told


def _example(one: Difference, run: Path, other: Path, as_json: bool) -> str:
    if as_json:
        row: dict[str, Any] = {"kind": one.kind, "id": str(one.id), "reason": one.reason}
        row |= {
            "update": None if one.ours is None else one.ours.update,
            "other_update": None if one.theirs is None else one.theirs.update,
        }
        return json_line(row)
    both = ((run, one.ours), (other, one.theirs))
    where = [f"update {example.update} in {name}" for name, example in both if example is not None]
    told = KINDS[one.kind].format(run=run, other=other)
    return plain(f"{one.id}  {told}: {', '.join(where)}; {one.reason}", keep="")


def _pairs(run: Path, other: Path) -> Iterator[tuple[Example | None, Example | None]]:
    """(the example in the one run, in the other one), each example once; those of one run only at the end."""
    alone: tuple[dict[CompletionId, Example], dict[CompletionId, Example]] = {}, {}
    for both in zip_longest(_updates(run), _updates(other), fillvalue=()):
        for example in both[0]:
            alone[0][example.id] = example
        for theirs in both[1]:
            if (ours := alone[0].pop(theirs.id, None)) is None:
                alone[1][theirs.id] = theirs
            else:
                yield ours, theirs
        for example in both[0]:
            if example.id in alone[0] and (match := alone[1].pop(example.id, None)) is not None:
                yield alone[0].pop(example.id), match
    yield from ((example, None) for example in alone[0].values())
    yield from ((None, example) for example in alone[1].values())


def _updates(journal: Path) -> Iterator[list[Example]]:
    """What counts of each update, in order."""
    trained = (
        Example(left.completion, departure.update, departure.complete_for)
        for departure in Fates(journal, survey(journal))
        for left in departure.left
        if departure.update is not None and left.fate == "trained" and not left.made_again
    )
    for _, examples in groupby(trained, key=lambda example: example.update):
        yield list(examples)
