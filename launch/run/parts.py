"""Starts the parts of a run and ends them: the replay buffer, the learner's ranks, the rollout groups and their publishers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ray.actor import ActorHandle

from corewarding.actors.engine import EngineContext
from corewarding.actors.engines import ENGINES
from corewarding.actors.group import RolloutGroup
from corewarding.actors.member import log_of
from corewarding.actors.rollout_actor import PlacedRolloutActor
from corewarding.dataflow.ids import AskedId, Channel, Source, Version
from corewarding.evals.heldout import EvalResult, score_completions
from corewarding.evals.tasks import evaluation_tasks
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.run import placement
from corewarding.launch.run.ending.supervision import refuse_stopped
from corewarding.launch.run.inputs import Inputs
from corewarding.launch.run.plans import buffer_plan, learner_plan
from corewarding.launch.run.preflight.needs import joins_cluster, process_environment, weight_backend
from corewarding.launch.run.protocols import Log, Parts
from corewarding.launch.run.publishing.publisher import Publisher
from corewarding.learner.checkpoint.store import Checkpoint, CheckpointStore
from corewarding.learner.group import LearnerGroup
from corewarding.learner.replay.actor import BufferActor, start_buffer
from corewarding.learner.replay.client import BufferClient
from corewarding.questions.order import QuestionCursor

GB = 10**9
LINE_S = 15.0
"""Seconds between two lines on a model that is being loaded."""
BUFFER_LOG = "buffer.log"


def logs_of(config: TrainConfig) -> Path:
    """The folder of the processes' logs, absolute for processes that start elsewhere."""
    return RunDir(config.run.root, config.run.name).logs.absolute()


@asynccontextmanager
async def placed(
    config: TrainConfig,
    inputs: Inputs,
    store: CheckpointStore,
    log: Log,
    checkpoint: Checkpoint | None,
    room: placement.Reservation,
) -> AsyncIterator[Parts]:
    """Starts all actors, the learner with the checkpoint's weights, and ends them when the context is left."""
    state: dict[str, Any] = checkpoint.state if checkpoint else {}
    version = Version(incarnation=state.get("incarnation", -1) + 1, updates=state.get("updates", 0))
    buffer = start_buffer(
        buffer_plan(config, version.incarnation, known=inputs.known),
        inputs.gold,
        state.get("buffer"),
        runtime_env=process_environment(1),
        log=logs_of(config) / BUFFER_LOG,
    )
    learner = _learner(config, version.incarnation, room)
    groups = {
        source: rollout_group(config, inputs, source, num, buffer=buffer, version=version, room=room)
        for source, num in _num_actors(config, inputs).items()
    }
    lock = asyncio.Lock()

    async def evaluate(quick: bool) -> EvalResult | None:
        return await _evaluate(config, inputs, groups["policy"], quick=quick)

    try:
        await all_start(
            logs_of(config),
            learner.start(config.learner.start_timeout_s, on_read=_loading(log)),
            *(group.start() for group in groups.values()),
        )
        if checkpoint is not None:
            await learner.load(checkpoint.learner, version.incarnation)
        yield Parts(
            config=config,
            version=version,
            rule=inputs.rule,
            prepared=inputs.prepared,
            cursor=_cursor(config, inputs, state),
            buffer=BufferClient(buffer, log=logs_of(config) / BUFFER_LOG),
            learner=learner,
            learner_lock=lock,
            groups=groups,
            publishers=_publishers(config, learner, groups, lock),
            checkpoints=store,
            log=log,
            initial_answers=RunDir(config.run.root, config.run.name).initial_answers,
            evaluate=evaluate,
        )
    finally:
        for group in groups.values():
            await group.close()
        await learner.close()


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


async def all_start(logs: Path, *starts: Coroutine[Any, Any, object]) -> None:
    """Returns when all have started. The first failure is raised at once, and the other starts are given up."""
    tasks = [asyncio.ensure_future(start) for start in starts]
    started: asyncio.Future[Any] = asyncio.gather(*tasks)
    stopped: asyncio.Future[Any] = asyncio.ensure_future(refuse_stopped(logs))
    try:
        await asyncio.wait({started, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            stopped.result()
        await started
    finally:
        for task in (*tasks, stopped):
            task.cancel()
        await asyncio.gather(*tasks, started, stopped, return_exceptions=True)


def rollout_group(
    config: TrainConfig,
    inputs: Inputs,
    source: Source,
    num_actors: int,
    *,
    buffer: ActorHandle[BufferActor] | None,
    version: Version,
    room: placement.Reservation,
) -> RolloutGroup:
    """The actors of one source, not started yet. version: of the weights in the model folder that they load."""
    rollout, engine = config.rollout, config.engine_of(source)
    context = EngineContext(
        settings=engine,
        model_path=config.model_folder,
        max_model_len=inputs.max_model_len,
        device="cuda" if rollout.gpus_per_actor > 0 else "cpu",
        version=version,
        inflight=config.inflight.mode,
    )
    python = engine.python if ENGINES[engine.kind].python_of == "actor" else None
    remote = placement.actor_class(
        PlacedRolloutActor,
        num_cpus=rollout.cpus_per_actor,
        num_gpus=rollout.gpus_per_actor,
        resources=rollout.resources,
        max_concurrency=10_000,
        runtime_env=process_environment(engine.threads, python=python),
    )

    logs = logs_of(config)

    def make(index: int, restart: int) -> Any:
        return remote.options(**room.options(source, index)).remote(
            actor_id=log_of(logs, source, index, restart).stem,
            log=log_of(logs, source, index, restart),
            source=source,
            context=context,
            system_prompt=config.data.system_prompt,
            buffer=buffer,
            fallbacks=config.vote.fallbacks,
        )

    return RolloutGroup(
        source,
        make,
        num_actors=num_actors,
        max_restarts=rollout.max_restarts,
        failure_window_s=rollout.failure_window_s,
        silent_s=rollout.silent_s,
        logs=logs,
        start_timeout_s=rollout.start_timeout_s,
    )


def _num_actors(config: TrainConfig, inputs: Inputs) -> dict[Source, int]:
    numbers: dict[Source, int] = {"policy": config.rollout.policy_actors}
    if inputs.rule.needs_teacher:
        numbers["teacher"] = config.rollout.teacher_actors
    return numbers


def _learner(config: TrainConfig, incarnation: int, room: placement.Reservation) -> LearnerGroup:
    return LearnerGroup(
        learner_plan(config),
        incarnation=incarnation,
        bucket_bytes=int(config.publish.bucket_mb * 2**20),
        wire_dtype=config.engine.dtype,
        runtime_env=process_environment(config.learner.threads),
        loopback=not joins_cluster(),
        options=lambda rank: room.options("learner", rank),
        logs=logs_of(config),
    )


def _publishers(
    config: TrainConfig, learner: LearnerGroup, groups: Mapping[Source, RolloutGroup], lock: asyncio.Lock
) -> dict[Channel, Publisher]:
    """One publisher for each group, on the channel of the same name."""
    return {
        source: Publisher(
            source,
            learner,
            group,
            settings=config.publish,
            backend=weight_backend(config),
            learner_lock=lock,
        )
        for source, group in groups.items()
    }


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


async def _evaluate(config: TrainConfig, inputs: Inputs, policy: RolloutGroup, *, quick: bool) -> EvalResult | None:
    """Held-out accuracy of the weights that the policy engines hold now; None without held-out questions."""
    if inputs.heldout is None:
        return None
    tasks = evaluation_tasks(
        inputs.heldout,
        num_questions=config.eval.quick_questions if quick else config.eval.num_questions,
        samples=0 if quick else config.eval.samples,
        temperature=config.eval.temperature,
        max_new_tokens=config.rollout.max_new_tokens,
        seed=config.train.seed,
    )
    completions = await policy.sample(tasks)
    return score_completions(completions, inputs.heldout_gold, n=config.eval.samples, units=config.vote.units)
