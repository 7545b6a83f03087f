"""`corewarding samples`: the same samples as text, for a terminal."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any

from corewarding.launch.report.plain import plain
from corewarding.launch.view.details import asking, tokens
from corewarding.launch.view.run import ViewedRun
from corewarding.launch.view.search.filters import Filter, rows_of
from corewarding.launch.view.tokens.learnt import TRAINED

MAX_ANSWER = 60


def lines(
    run: ViewedRun, wanted: Filter, *, limit: int | None, letters: int | None, with_tokens: bool = False
) -> Iterator[str]:
    """The askings that fit, one after the other, and how many there are. letters: of each completion's text; None: all.
    with_tokens: a line for each token of the groups that the learner trained on."""
    numbers = wanted.numbers(run.db)
    for n in numbers[:limit]:
        yield from _asking(run, n, letters, with_tokens)
        yield ""
    kept = "" if limit is None or len(numbers) <= limit else f", {limit} of them shown (--limit)"
    yield f"{len(numbers)} question{'s'[: len(numbers) != 1]}{kept}; {len(Filter().numbers(run.db))} in the journal of {run.name}"


def rows(run: ViewedRun, wanted: Filter, *, limit: int | None, with_tokens: bool = False) -> Iterator[dict[str, Any]]:
    """The askings that fit, JSON-ready, with groups and completions; with_tokens: and their tokens."""
    for n in wanted.numbers(run.db)[:limit]:
        (row,) = rows_of(run.db, [n])
        groups = asking(run, n)["groups"]
        if with_tokens:
            groups = [group | {"tokens": tokens(run, n, group["view"], group["source"])} for group in groups]
        yield row | {"groups": groups}


def _asking(run: ViewedRun, n: int, letters: int | None, with_tokens: bool) -> Iterator[str]:
    found = asking(run, n)
    made = found["fate"] if found["made"] is None else f"update {found['made']}"
    yield f"{_shown(found['id'])}  {made}{'  made again' if found['again'] else ''}"
    for view, wording in found["wordings"].items():
        if wording:
            yield f"  {view}: {_shown(wording, 500)}"
    if found["gold"] is not None:
        yield f"  data set's answer: {_shown(found['gold'])}"
    for group in found["groups"]:
        details = tokens(run, n, group["view"], group["source"]) if with_tokens and group["scored"] else None
        yield from _group(group, found["gold_key"], letters, details)


def _group(
    group: dict[str, Any], gold_key: str | None, letters: int | None, details: list[dict[str, Any]] | None
) -> Iterator[str]:
    vote = group["vote"]
    votes = ", ".join(f"{_shown(answer)} x {len(indices)}" for answer, indices in vote["classes"]) or "no answer"
    yield f"  {group['source']}, {group['view']}: {votes} (share {vote['share']:.2f})"
    if group["scored"]:
        voters = f", from {', '.join(group['heard'])}" if group["heard"] else ""
        if group["label"] is not None:
            judged = "" if gold_key is None else ", right" if group["label_key"] == gold_key else ", wrong"
            yield f"    label {_shown(group['label'])}{judged}{voters}"
        elif group["abstained"]:
            yield f"    no label: {group['why_abstained']}{voters}"
    for at, one in enumerate(group["completions"]):
        versions = f"v{one['first']}" if one["first"] == one["last"] else f"v{one['first']}-v{one['last']}"
        words = [
            f"    #{one['i']}",
            "no answer" if one["answer"] is None else f"answer {_shown(one['answer'])}",
            "" if one["reward"] is None else f"reward {one['reward']:.2f}",
            "" if one["advantage"] is None else f"advantage {one['advantage']:+.2f}",
            one["fate"] if one["reason"] is None else f"{one['fate']}: {one['reason']}",
            f"{one['tokens']} tokens",
            versions,
            "truncated" if one["truncated"] else "",
        ]
        yield "  ".join(filter(None, words))
        text = one["text"] if letters is None or len(one["text"]) <= letters else one["text"][:letters] + " ..."
        yield from (f"       {plain(line, keep='')}" for line in text.split("\n"))
        if details is not None:
            yield from _tokens(details[at])


def _tokens(one: dict[str, Any]) -> Iterator[str]:
    """A line for each token."""
    if one["missing"] is not None:
        yield f"       {one['missing']}"
    if one["pieces"] is None:
        return
    learnt = one["learnt"]
    versions, words = _by_token(one["versions"]), _by_token([] if learnt is None else learnt["loss"])
    yield f"       {'':>5}  weights  sampler  learner  proximal   ratio  weight  token"
    for at, piece in enumerate(one["pieces"]):
        logprob = one["logprobs"][at]
        values = [logprob, *(_learnt(learnt, at, logprob) if learnt is not None else [None] * 4)]
        policy, learner, proximal, ratio, weight = ("" if value is None else f"{value or 0.0:.3f}" for value in values)
        word = words(at)
        said = "" if word in (None, TRAINED) else f"  {word}"
        yield (
            f"       {at:>5}  {'v' + str(versions(at)):>7}  {policy:>7}  {learner:>7}  {proximal:>8}  {ratio:>6}  {weight:>6}  "
            f"{_shown(repr(piece))}{said}"
        )


def _by_token(runs: list[list[Any]]) -> Callable[[int], Any]:
    """From [first token, value] of each run to the value of a token."""
    starts = [start for start, _ in runs]
    return lambda at: runs[bisect_right(starts, at) - 1][1] if runs else None


def _learnt(learnt: dict[str, Any], at: int, logprob: float) -> list[float | None]:
    """(log-probability of the learner, proximal, ratio, weight) of a token."""

    def scaled(name: str, scale: float, base: float) -> float | None:
        value = None if learnt[name] is None else learnt[name][at]
        return None if value is None else base + value / scale

    policy, ratio = scaled("policy", 1e3, logprob), scaled("ratio", 1e4, 0.0)
    proximal = policy if learnt["proximal"] is None and ratio is not None else scaled("proximal", 1e3, logprob)
    return [policy, proximal, ratio, ratio if learnt["weight"] is None else scaled("weight", 1e4, 0.0)]


def _shown(text: str, most: int = MAX_ANSWER) -> str:
    return plain(text if len(text) <= most else text[:most] + "...", keep="")
