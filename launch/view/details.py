"""One asking in full: wordings, groups with their votes, every completion and how its answer was read; and a group's tokens."""

from __future__ import annotations

import json
import sqlite3
from functools import lru_cache
from typing import Any

from corewarding.dataflow.carriers import Completion
from corewarding.dataflow.errors import UserError
from corewarding.dataflow.ids import Source, View
from corewarding.launch.view.facts import Facts
from corewarding.launch.view.run import ViewedRun
from corewarding.launch.view.summary import ORDER
from corewarding.launch.view.tail import frame_at
from corewarding.launch.view.tokens.learnt import Noted, learnt, missing, noted
from corewarding.launch.view.tokens.texts import pieces, prompt_text
from corewarding.learner.replay.journal.history import group_of
from corewarding.learner.replay.journal.records import Arrived, Held
from corewarding.learner.replay.journal.segments import Position
from corewarding.learner.token_log.entries import checksum
from corewarding.rewards.answers.explain import explain_answer
from corewarding.rewards.settings import VoteSettings

MAX_TOKENS = 50_000
"""A completion of more tokens is shown as a text alone."""


class NoSuchSampleError(UserError):
    """The run holds no such question, group or completion."""


def number_of(run: ViewedRun, asked: str) -> int:
    """The newest asking of this id (`q12/e0`), or of this question. NoSuchSampleError if there is none."""
    row = run.db.execute(
        "SELECT n FROM askings WHERE id = ? OR question = ? ORDER BY id = ? DESC, again, n DESC LIMIT 1", (asked,) * 3
    ).fetchone()
    if row is None:
        raise NoSuchSampleError(f"{run.name} holds no question {asked!r}")
    return int(row[0])


def asking(run: ViewedRun, n: int) -> dict[str, Any]:
    """The asking with number `n`, JSON-ready, without its tokens. NoSuchSampleError if there is none."""
    row = run.db.execute("SELECT * FROM askings WHERE n = ?", (n,)).fetchone()
    if row is None:
        raise NoSuchSampleError(f"{run.name} holds no asking number {n}")
    groups = run.db.execute(f"SELECT * FROM groups WHERE n = ? ORDER BY {ORDER}", (n,)).fetchall()
    question = run.facts.questions.get(row["question"])
    others = run.db.execute(
        "SELECT n, id, made, fate, again FROM askings WHERE question = ? AND n != ? ORDER BY n", (row["question"], n)
    )
    facts, gold = run.facts, run.facts.answer_of(row["question"])
    return {
        "run": run.name,
        "rule": facts.rule_name,
        "n": n,
        "id": row["id"],
        "question": row["question"],
        "epoch": row["epoch"],
        "made": row["made"],
        "fate": row["fate"],
        "reason": row["reason"],
        "again": bool(row["again"]),
        "wordings": {} if question is None else {"original": question.original, "rephrased": question.rephrased},
        "gold": gold,
        "gold_key": None if gold is None else facts.key(gold),
        "groups": [_group(run, group, groups) for group in groups],
        "others": [dict(other) for other in others],
    }


def tokens(run: ViewedRun, n: int, view: View, source: Source) -> list[dict[str, Any]]:
    """For each completion of a group its tokens' texts and log-probabilities (None without a tokenizer, or if there are too many),
    their versions, what the learner made of them (None without an entry in the token log; `missing` says why), and its prompt."""
    row = run.db.execute(
        "SELECT segment, offset, id, made FROM groups JOIN askings USING (n) WHERE n = ? AND view = ? AND source = ?",
        (n, view, source),
    ).fetchone()
    if row is None:
        raise NoSuchSampleError(f"asking number {n} has no group {view}/{source}")
    records = frame_at(run.journal, Position(row["segment"], row["offset"]))
    found = next(group_of(one.completions) for one in records if isinstance(one, Arrived | Held))
    made: int | None = row["made"]
    values = noted(run, row["id"], made)
    fates = dict(
        run.db.execute("SELECT i, fate FROM completions WHERE n = ? AND view = ? AND source = ?", (n, view, source))
    )
    return [
        _tokens(run, one) | _learnt(run, one, values.get((one.id, checksum(one))), made, fates[one.id.sample_index])
        for one in found
    ]


def _learnt(run: ViewedRun, one: Completion, entry: Noted | None, made: int | None, fate: str) -> dict[str, Any]:
    num = len(one.token_ids)
    if entry is None or len(entry.values.marks) != num:
        return {"learnt": None, "missing": missing(run, made, fate)}
    return {"learnt": learnt(run, one, entry) if num <= MAX_TOKENS else None, "missing": None}


def _tokens(run: ViewedRun, one: Completion) -> dict[str, Any]:
    tokenizer = run.tokenizer if len(one.token_ids) <= MAX_TOKENS else None
    versions = one.token_versions.tolist()
    swaps = [[at, version] for at, version in enumerate(versions) if at == 0 or version != versions[at - 1]]
    return {
        "pieces": None if tokenizer is None else pieces(tokenizer, one.token_ids.tolist()),
        "logprobs": None if tokenizer is None else [round(value, 3) for value in one.behavior_logprobs.tolist()],
        "versions": swaps,
        "temperature": one.temperature,
        "actor": one.actor_id,
        "attempt": one.attempt,
        "seconds": round(one.timings.finished_s - one.timings.started_s, 3),
        "prompt": None if run.tokenizer is None else prompt_text(run.tokenizer, one.prompt_token_ids.tolist()),
    }


def _group(run: ViewedRun, group: sqlite3.Row, groups: list[sqlite3.Row]) -> dict[str, Any]:
    kind = (group["view"], group["source"])
    rows = run.db.execute(
        "SELECT * FROM completions WHERE n = ? AND view = ? AND source = ? ORDER BY i", (group["n"], *kind)
    )
    votes = {(one["view"], one["source"]): json.loads(one["vote"]) for one in groups}
    heard = [voters for voters in run.facts.voters_of(kind) if voters in votes] if group["scored"] else []
    return {
        "view": group["view"],
        "source": group["source"],
        "vote": votes[kind],
        "scored": bool(group["scored"]),
        "label": group["label"],
        "label_key": None if group["label"] is None else run.facts.key(group["label"]),
        "abstained": bool(group["abstained"]),
        "why_abstained": why_abstained(run.facts.vote, [votes[kind] for kind in heard]) if group["abstained"] else None,
        "heard": ["/".join(voters) for voters in heard],
        "completions": [_completion(run.facts, row) for row in rows],
    }


def why_abstained(settings: VoteSettings, votes: list[dict[str, Any]]) -> str:
    """Why the voters gave no label, in words."""
    for vote in votes:
        voters, share = vote["voters"], vote["share"]
        if voters == 0:
            return "no completion that votes has an answer"
        if voters < settings.min_voters:
            return f"{voters} completions have an answer, fewer than vote.min_voters {settings.min_voters}"
        if share < settings.min_share:
            return f"the largest share of the votes is {share:.2f}, below vote.min_share {settings.min_share:g}"
    return "the rule gave no label"


def _completion(facts: Facts, row: sqlite3.Row) -> dict[str, Any]:
    names = ("i", "text", "answer", "key", "tokens", "fate", "reason", "reward", "advantage", "weight", "first", "last")
    made = {name: row[name] for name in names} | {"truncated": bool(row["truncated"])}
    made["found"] = facts.extraction(row["text"])
    made["reading"] = None if row["answer"] is None else _reading(row["answer"], facts.vote.units)
    return made


@lru_cache(maxsize=10_000)
def _reading(answer: str, units: Any) -> dict[str, Any]:
    found = explain_answer(answer, units=units)
    return {
        "kind": found.kind,
        "key": found.key,
        "tree": found.tree,
        "tokens": [[token.kind, token.text] for token in found.tokens],
        "note": found.note,
    }
