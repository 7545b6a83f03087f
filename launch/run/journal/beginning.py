"""With what a run begins: the learner's ranks, the questions, and the buffer's state; new, from a checkpoint, or from the journal."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corewarding.dataflow.errors import RunError
from corewarding.dataflow.ids import AskedId, Version
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.run import placement
from corewarding.launch.run.ending.supervision import all_start
from corewarding.launch.run.inputs import Inputs
from corewarding.launch.run.journal.redo import Comparison, redo
from corewarding.launch.run.journal.resume import Resumption
from corewarding.launch.run.journal.returning import ReturningLearner
from corewarding.launch.run.plans import learner_plan, token_log
from corewarding.launch.run.preflight.needs import joins_cluster, process_environment
from corewarding.launch.run.protocols import Log
from corewarding.learner.checkpoint.store import Checkpoint, CheckpointStore
from corewarding.learner.group import LearnerGroup
from corewarding.learner.replay.journal.history import History
from corewarding.questions.order import QuestionCursor

GB = 10**9
LINE_S = 15.0
"""Seconds between two lines on a model that is being loaded."""


def logs_of(config: TrainConfig) -> Path:
    """The folder of the processes' logs, absolute for processes that start elsewhere."""
    return RunDir(config.run.root, config.run.name).logs.absolute()


class LearnerReturnError(RunError):
    """The learner's ranks are back, but their weights are not those that they had."""


@dataclass(slots=True, kw_only=True)
class Beginning:
    """With what the buffer and the questions begin."""

    learner: LearnerGroup  # started, and with its weights, if the run goes on from its journal
    version: Version
    buffer: dict[str, Any] | None
    cursor: QuestionCursor
    goes_on: bool = False


async def beginning(
    config: TrainConfig,
    inputs: Inputs,
    log: Log,
    checkpoint: Checkpoint | None,
    room: placement.Reservation,
    resumption: Resumption | None,
) -> Beginning:
    """A run that goes on from its journal makes updates again here, because what the buffer does depends on what comes of it."""
    state: dict[str, Any] = checkpoint.state if checkpoint else {}
    if resumption is None:
        version = Version(incarnation=state.get("incarnation", -1) + 1, updates=state.get("updates", 0))
        return Beginning(
            learner=learner_ranks(config, version.incarnation, room),
            version=version,
            buffer=state.get("buffer"),
            cursor=_cursor(config, inputs, state),
        )
    learner = learner_ranks(config, resumption.incarnation, room)
    try:
        await all_start(logs_of(config), ready(config, learner, log, checkpoint, resumption.incarnation))
        await resumption.make_updates(learner, log)
        version = resumption.version
        await learner.open_incarnation(version.incarnation)
    except BaseException:
        await learner.close()
        raise
    places = {question.id: index for index, question in enumerate(inputs.prepared.questions)}
    return Beginning(
        learner=learner,
        version=version,
        buffer=resumption.buffer_state(),
        cursor=resumption.cursor(places, seed=config.train.seed),
        goes_on=resumption.goes_on,
    )


def returning_learner(
    config: TrainConfig, begin: Beginning, store: CheckpointStore, log: Log, room: placement.Reservation
) -> ReturningLearner:
    """The ranks of `begin`, which come back from checkpoint and journal after a death; without a journal they do not."""
    incarnation = begin.version.incarnation
    folder = RunDir(config.run.root, config.run.name).journal

    async def restore(ranks: LearnerGroup, updates: int) -> str:
        checkpoint = await asyncio.to_thread(store.latest)
        await ready(config, ranks, log, checkpoint, incarnation)
        after = 0 if checkpoint is None else checkpoint.update
        history, comparison = await asyncio.to_thread(History.of, folder), Comparison()
        async for _ in redo(ranks, history, after=after, until=updates, comparison=comparison):
            pass
        if (update := comparison.first_difference) is not None:
            raise LearnerReturnError(
                f"update {update}, made again after a rank's death, gave other weights than before, so what the engines have "
                "sampled no longer belongs to the learner's weights"
            )
        return (
            f"updates {after + 1} to {updates} are made again, bit for bit" if updates > after else "no update was lost"
        )

    return ReturningLearner(
        begin.learner,
        updates=begin.version.updates,
        make=lambda: learner_ranks(config, incarnation, room),
        restore=restore,
        max_restarts=config.learner.max_restarts if config.keeps_journal else 0,
        say=log.warn,
    )


async def ready(
    config: TrainConfig, learner: LearnerGroup, log: Log, checkpoint: Checkpoint | None, incarnation: int
) -> None:
    """Starts the ranks and gives them the checkpoint's weights."""
    await learner.start(config.learner.start_timeout_s, on_read=_loading(log))
    if checkpoint is not None:
        await learner.load(checkpoint.learner, incarnation)


def _loading(log: Log) -> Callable[[int, int], None]:
    """Shows how far the learner's ranks have read the model; a line that stays if it takes long."""
    said = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal said
        text = f"loading the model: {done / GB:.1f} of {total / GB:.1f} GB ({done / total:.0%})"
        log.phase(text)
        if time.monotonic() - said > LINE_S:
            said = time.monotonic()
            log.say(text)

    return show


def learner_ranks(config: TrainConfig, incarnation: int, room: placement.Reservation) -> LearnerGroup:
    return LearnerGroup(
        dataclasses.replace(learner_plan(config), token_log=token_log(config)),
        incarnation=incarnation,
        bucket_bytes=int(config.publish.bucket_mb * 2**20),
        wire_dtype=config.engine.dtype,
        runtime_env=process_environment(config.learner.threads),
        loopback=not joins_cluster(),
        options=lambda rank: room.options("learner", rank),
        logs=logs_of(config),
    )


def _cursor(config: TrainConfig, inputs: Inputs, state: dict[str, Any]) -> QuestionCursor:
    """The cursor of a new run, or that of a checkpoint: questions that were asked and not consumed come first."""
    per_update, questions = config.train.questions_per_update, inputs.prepared.questions
    if not state:
        return QuestionCursor(len(questions), config.train.seed, drop_remainder_of=per_update)
    cursor = QuestionCursor.restore(state["cursor"], num_questions=len(questions), seed=config.train.seed)
    places = {question.id: index for index, question in enumerate(questions)}
    pending = [AskedId(question_id=question_id, epoch=epoch) for question_id, epoch in state["buffer"]["pending"]]
    cursor.give_back((asked.epoch, places[asked.question_id]) for asked in pending)
    return cursor
