"""A resumed run goes on from its journal: updates after the checkpoint are made again from the same batches, and completions that wait
are not sampled again.

If the weights that come of it are those of the journal, bit for bit, versions go on. If not (a GPU that does not repeat itself, other
ranks, packages or cores), a new incarnation opens: the updates count, and what the lost weights have sampled is dropped by name.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from corewarding.dataflow.carriers import StepResult
from corewarding.dataflow.ids import AskedId, GroupId, Version
from corewarding.dataflow.metrics import Metrics
from corewarding.evals.heldout import EvalResult
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.files import whole_rows
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.run.inputs import Inputs
from corewarding.launch.run.journal.redo import Comparison, redo
from corewarding.launch.run.plans import buffer_plan
from corewarding.launch.run.protocols import Learner, Log
from corewarding.learner.checkpoint.store import Checkpoint
from corewarding.learner.replay.journal.history import History
from corewarding.learner.replay.journal.recovery import Recovered, recover
from corewarding.learner.replay.journal.segments import JournalError, segments
from corewarding.questions.order import QuestionCursor


@dataclass(slots=True, kw_only=True)
class Resumption:
    """What a journal gives to a run that is resumed."""

    history: History
    recovered: Recovered
    after: int  # update of the checkpoint; 0 without one
    comparison: Comparison = field(default_factory=Comparison)
    redone: list[StepResult] = field(default_factory=list)

    @property
    def incarnation(self) -> int:
        """Of the weights in the journal."""
        return self.history.starts[-1].incarnation

    @property
    def until(self) -> int:
        """The last update that was given to the learner."""
        return self.history.last

    @property
    def goes_on(self) -> bool:
        """Whether the weights are those of the journal; after `make_updates`."""
        return self.comparison.first_difference is None

    @property
    def version(self) -> Version:
        """Of the weights after `make_updates`."""
        return Version(incarnation=self.incarnation + (not self.goes_on), updates=self.until)

    @property
    def unanswered(self) -> list[GroupId]:
        """The groups that were asked for and did not arrive, if versions go on."""
        return self.recovered.buffer.missing() if self.goes_on else []

    def buffer_state(self) -> dict[str, Any] | None:
        """The state with which a buffer of a new incarnation begins; None if the buffer goes on from its journal."""
        return None if self.goes_on else self.recovered.buffer.state()

    def cursor(self, places: dict[str, int], *, seed: int) -> QuestionCursor:
        """Where the questions stand. places: id of a question to its index."""
        cursor = QuestionCursor.restore(self.recovered.cursor, num_questions=len(places), seed=seed)
        for asked in self.recovered.admitted:
            if cursor.peek(1) != [(asked.epoch, places[asked.question_id])]:
                raise JournalError(f"the journal admits {asked}, which is not the next question of this run")
            cursor.advance(1)
        if (state := self.buffer_state()) is not None:
            pending = [AskedId(question_id=question_id, epoch=epoch) for question_id, epoch in state["pending"]]
            cursor.give_back((asked.epoch, places[asked.question_id]) for asked in pending)
        return cursor

    async def make_updates(self, learner: Learner, log: Log) -> None:
        """Lets the learner, which has the checkpoint's weights, make the updates after it. Says how that went."""
        if self.until == self.after:
            return
        async for one in self._redo(learner):
            log.phase(f"making update {one.version.updates} of {self.until} again from the journal")
        made = f"updates {self.after + 1} to {self.until} were made again from the journal"
        if self.goes_on:
            log.say(f"{made}; the weights are the same, bit for bit")
        else:
            log.warn(
                f"{made}; from update {self.comparison.first_difference} on the weights differ, so what they had sampled is "
                "dropped and asked again"
            )

    async def _redo(self, learner: Learner) -> AsyncIterator[StepResult]:
        redone = redo(learner, self.history, after=self.after, until=self.until, comparison=self.comparison)
        async for one in redone:
            self.redone.append(one.result)
            yield one.result

    def write_missing(self, log: Log) -> None:
        """Writes the updates that the interrupted run had made and not yet logged."""
        logged = {row["update"] for row in log.earlier_updates()}
        for result in self.redone:
            update = result.version.updates
            if update not in logged:
                report = self.recovered.buffer.report(update) if self.recovered.buffer.can_report(update) else None
                metrics = [result.metrics, *([report.metrics] if report is not None else [])]
                log.update(update, Metrics.union(metrics), report.rows if report is not None else [])


def resumption(
    config: TrainConfig, inputs: Inputs, run_dir: RunDir, checkpoint: Checkpoint | None, log: list[str]
) -> Resumption | None:
    """What the journal gives; None where the run goes on from the checkpoint alone. log: takes the reason, if there is a journal."""
    if not config.keeps_journal or not segments(run_dir.journal):
        return None
    after = 0 if checkpoint is None else checkpoint.update
    changed = [change for change in run_dir.changes_of(config) if not change.is_free]
    try:
        history = History.of(run_dir.journal)
        if changed:
            if history.last > after:
                log.append(
                    f"the journal's updates after update {after} are not used, because {'; '.join(map(str, changed))}"
                )
            return None
        plan = buffer_plan(config, history.starts[-1].incarnation, known=inputs.known)
        recovered = recover(run_dir.journal, plan, copy.deepcopy(inputs.gold), report_again=True)
        if history.last < after:
            raise JournalError(f"it ends with update {history.last}")
        for _ in history.updates(after):
            pass  # everything is there and fits its checksum
    except JournalError as error:
        log.append(f"the journal is not used, and what was made after update {after} is made anew: {error}")
        return None
    return Resumption(history=history, recovered=recovered, after=after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What a run goes on from: its newest checkpoint, its journal, both, or neither."""

    checkpoint: Checkpoint | None
    again: Resumption | None

    @property
    def updates(self) -> int:
        """In the weights with which it begins."""
        return self.again.until if self.again is not None else self.checkpoint.update if self.checkpoint else 0

    def words(self, run_dir: RunDir) -> dict[str, str]:
        """For the table printed at the start."""
        words = {} if self.checkpoint is None else {"resumes": f"after update {self.checkpoint.update}"}
        if self.again is not None:
            words["resumes"] = f"after update {self.again.until}, from the journal"
        if run_dir.changes:
            words["changed"] = "; ".join(map(str, run_dir.changes))
        return words

    def evaluation(self, run_dir: RunDir) -> EvalResult | None:
        """The evaluation before training, if it was made."""
        if self.checkpoint is not None:
            before = self.checkpoint.state.get("before")
            return EvalResult.from_dict(before) if before else None
        return _evaluation_before(run_dir) if self.again is not None else None


def _evaluation_before(run_dir: RunDir) -> EvalResult | None:
    """The evaluation before training, from the metrics of a run that has no checkpoint yet."""
    row = next((row for row in whole_rows(run_dir.metrics) if row.get("kind") == "eval_before"), None)
    if row is None:
        return None
    names = {one.name for one in dataclasses.fields(EvalResult)}
    values = dict.fromkeys(names - {"n", "mean", "maj", "pass_at"}) | {
        key: value for key, value in row.items() if key in names or "@" in key
    }
    return EvalResult.from_dict(values)
