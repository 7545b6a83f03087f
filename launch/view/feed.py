"""Fills the index of a run from its journal, from where it stopped, and says what became of each completion."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from corewarding.dataflow.carriers import Completion
from corewarding.dataflow.ids import AskedId, GroupId
from corewarding.dataflow.votes import Vote
from corewarding.launch.view.facts import Facts
from corewarding.launch.view.index import Index
from corewarding.launch.view.summary import summarize
from corewarding.launch.view.tail import frames
from corewarding.learner.replay.journal.history import group_of
from corewarding.learner.replay.journal.records import (
    Arrived,
    Evicted,
    GivenUp,
    Held,
    Record,
    Refused,
    Scored,
    Start,
)
from corewarding.learner.replay.journal.segments import Position
from corewarding.rewards.voting import vote

COMMIT_S = 0.2
"""What has been read is shown at the latest after so many seconds."""


class Feed:
    """The one writer of an index."""

    def __init__(self, index: Index, facts: Facts, journal: Path) -> None:
        self._index, self._facts, self._journal = index, facts, journal
        self._start: str = index.value("start", "")
        self._refused: int = index.value("refused", 0)
        rows = index.db.execute("SELECT n, question, epoch FROM askings WHERE fate = 'waiting'")
        self._open = {AskedId(question_id=row["question"], epoch=row["epoch"]): int(row["n"]) for row in rows}
        self._changed: set[int] = set()

    def catch_up(self, *, stop: Callable[[], bool] = lambda: False) -> bool:
        """Reads what is new in the journal; whether there was anything. JournalError for damage. stop: ends it before the end."""
        place, written, found = self._index.place, time.monotonic(), False
        for at, after, records in frames(self._journal, place):
            place, found = after, True
            self._see(at, records)
            if time.monotonic() - written > COMMIT_S:
                self._commit(place)
                written = time.monotonic()
                if stop():
                    return True
        if found:
            self._commit(place)
        return found

    def judge_again(self) -> None:
        """Compares labels with answers that were not known when they were indexed."""
        rows = self._index.db.execute("SELECT n FROM askings WHERE wrong IS NULL AND labels != '[]'").fetchall()
        for row in rows:
            summarize(self._index.db, row["n"], self._facts)
        self._index.db.commit()

    def _commit(self, place: Position) -> None:
        for n in self._changed:
            summarize(self._index.db, n, self._facts)
        self._changed.clear()
        self._index.keep(start=self._start, refused=self._refused)
        self._index.commit(place)

    def _see(self, place: Position, records: Sequence[Record]) -> None:
        if any(isinstance(record, Refused) for record in records):
            self._refused += 1
            return
        for record in records:
            match record:
                case Start() if record.start != self._start:
                    self._begin(record)
                case Arrived(completions=message) | Held(completions=message):
                    self._arrive(place, group_of(message))
                case Evicted(asked=asked, reason=reason):
                    self._drop(asked, reason)
                case GivenUp(asked=asked):
                    self._drop(asked, "failed_task")
                case Scored():
                    self._score(record)
                case _:
                    pass

    def _begin(self, start: Start) -> None:
        """A start that does not go on with the journal makes later updates again, and loses what waits."""
        self._start = start.start
        if start.goes_on:
            return
        self._index.db.execute("UPDATE askings SET again = 1 WHERE made > ?", (start.updates,))
        for asked in list(self._open):
            self._drop(asked, "lost_incarnation")

    def _arrive(self, place: Position, group: Sequence[Completion]) -> None:
        db, name = self._index.db, group[0].id.group
        kind = (name.view, name.source)
        if (n := self._open.get(name.asked)) is None:
            question = self._facts.questions.get(name.question_id)
            wording = "" if question is None else f"{question.original}\n{question.rephrased or ''}".strip()
            n = self._index.add_asking(str(name.asked), name.question_id, name.epoch, wording)
            self._open[name.asked] = n
        elif db.execute("SELECT 1 FROM groups WHERE n = ? AND view = ? AND source = ?", (n, *kind)).fetchone():
            return  # a snapshot holds it once more
        settings, key = self._facts.vote, self._facts.key
        found = vote(
            group, key=key, min_share=settings.min_share, min_voters=settings.min_voters, weights=settings.weights
        )
        top = key(found.classes[0].answer) if found.classes else None
        rows = [
            (
                one.id.sample_index,
                one.answer,
                None if one.answer is None else key(one.answer),
                len(one.token_ids),
                one.truncated,
                one.oldest_version,
                int(one.token_versions[-1]),
                one.text,
            )
            for one in group
        ]
        self._index.add_group(n, kind, place, _vote_row(found), top, rows)
        self._changed.add(n)

    def _drop(self, asked: AskedId, reason: str) -> None:
        if (n := self._open.pop(asked, None)) is not None:
            for table in ("askings", "completions"):
                self._index.db.execute(f"UPDATE {table} SET fate = 'dropped', reason = ? WHERE n = ?", (reason, n))
            self._changed.add(n)

    def _score(self, scored: Scored) -> None:
        db = self._index.db
        samples = {
            name: values
            for name, *values in zip(
                scored.samples,
                scored.advantages.tolist(),
                scored.in_loss.tolist(),
                scored.weights.tolist(),
                strict=True,
            )
        }
        numbers = {asked: self._open.pop(asked) for asked in {name.asked for name in scored.groups} & self._open.keys()}
        for n in numbers.values():
            db.execute("UPDATE completions SET fate = 'voted' WHERE n = ?", (n,))
        at, updates = 0, []
        for name, label, abstained, size in zip(
            scored.groups, scored.labels, scored.abstained.tolist(), scored.sizes.tolist(), strict=True
        ):
            rewards = scored.rewards[at : at + size].tolist()
            at += size
            if (number := numbers.get(name.asked)) is None:
                continue  # it came before the journal begins
            db.execute(
                "UPDATE groups SET scored = 1, label = ?, abstained = ? WHERE n = ? AND view = ? AND source = ?",
                (label, abstained, number, name.view, name.source),
            )
            updates += [_scores(name, i, reward, samples) + (number,) for i, reward in enumerate(rewards)]
        db.executemany(
            "UPDATE completions SET fate = ?, reason = ?, reward = ?, advantage = ?, weight = ? "
            "WHERE view = ? AND source = ? AND i = ? AND n = ?",
            updates,
        )
        for n in numbers.values():
            db.execute("UPDATE askings SET made = ?, fate = 'voted' WHERE n = ?", (scored.update, n))
        self._changed.update(numbers.values())


def _scores(name: GroupId, i: int, reward: float, samples: dict[Any, list[Any]]) -> tuple[Any, ...]:
    """(fate, reason, reward, advantage, weight, view, source, i) of one completion of a trained group."""
    where = (name.view, name.source, i)
    if (sample := samples.get(name.completion(i))) is None:
        return ("dropped", "zero_advantage", reward, 0.0, None, *where)
    advantage, in_loss, weight = sample
    return ("trained" if in_loss else "withheld", None, reward, advantage, weight, *where)


def _vote_row(found: Vote) -> dict[str, Any]:
    return {
        "answer": found.answer,
        "share": found.share,
        "voters": found.num_voters,
        "classes": [[one.answer, list(one.sample_indices)] for one in found.classes],
    }
