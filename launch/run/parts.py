"""The parts of a run, and how they are placed: the replay buffer, the learner's ranks, the rollout groups, their publishers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle

from corewarding.actors.engine import EngineContext
from corewarding.actors.engines import ENGINES
from corewarding.actors.group import RolloutGroup
from corewarding.actors.rollout_actor import PlacedRolloutActor
from corewarding.dataflow.ids import AskedId, Channel, Source, Version
from corewarding.evals.heldout import EvalResult, score_completions
from corewarding.evals.tasks import evaluation_tasks
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.log import Watch
from corewarding.launch.run import placement
from corewarding.launch.run.inputs import Inputs
from corewarding.launch.run.plans import buffer_plan, learner_plan
from corewarding.launch.run.publisher import Publisher
from corewarding.learner.checkpoint import Checkpoint, CheckpointStore
from corewarding.learner.group import LearnerGroup
from corewarding.learner.replay.actor import start_buffer
from corewarding.learner.replay.client import BufferClient
from corewarding.questions.order import QuestionCursor
from corewarding.questions.prompts import PreparedQuestions
from corewarding.rewards.rules.table import RewardRule


@dataclass(slots=True, kw_only=True)
class Parts:
    """Everything the controller drives, placed and started."""

    config: TrainConfig
    rule: RewardRule
    prepared: PreparedQuestions
    cursor: QuestionCursor
    learner: LearnerGroup
    groups: dict[Source, RolloutGroup]
    publishers: dict[Channel, Publisher]
    buffer: BufferClient
    learner_lock: asyncio.Lock  # held while the weights move; publishers hold it while they are sent
    checkpoints: CheckpointStore
    watch: Watch
    evaluate: Callable[[bool], Awaitable[EvalResult | None]]  # True: the quick, greedy one


async def place(
    config: TrainConfig,
    inputs: Inputs,
    store: CheckpointStore,
    watch: Watch,
    checkpoint: Checkpoint | None,
    room: placement.Reservation,
) -> Parts:
    """Starts all actors; the learner holds the checkpoint's weights when this returns."""
    state: dict[str, Any] = checkpoint.state if checkpoint else {}
    updates, incarnation = state.get("updates", 0), state.get("incarnation", -1) + 1
    buffer = start_buffer(
        buffer_plan(config, incarnation),
        inputs.gold,
        state.get("buffer"),
        runtime_env=placement.process_environment(1),
    )
    learner = LearnerGroup(
        learner_plan(config),
        incarnation=incarnation,
        bucket_bytes=int(config.publish.bucket_mb * 2**20),
        wire_dtype=config.engine.dtype,
        runtime_env=placement.process_environment(config.learner.threads),
        loopback=not placement.joins_cluster(),
        options=lambda rank: room.options("learner", rank),
    )
    sources: dict[Source, int] = {"policy": config.rollout.policy_actors}
    if inputs.rule.needs_teacher:
        sources["teacher"] = config.rollout.teacher_actors
    groups = {
        source: _group(config, inputs, source, num, buffer, incarnation, updates, room)
        for source, num in sources.items()
    }
    await asyncio.gather(learner.start(), *(group.start() for group in groups.values()))
    if checkpoint is not None:
        await learner.load(checkpoint.learner, incarnation)
    lock = asyncio.Lock()

    async def evaluate(quick: bool) -> EvalResult | None:
        return await _evaluate(config, inputs, groups["policy"], quick=quick)

    return Parts(
        config=config,
        rule=inputs.rule,
        prepared=inputs.prepared,
        cursor=_cursor(config, inputs, state),
        learner=learner,
        groups=groups,
        publishers=_publishers(config, learner, groups, lock),
        buffer=BufferClient(buffer),
        learner_lock=lock,
        checkpoints=store,
        watch=watch,
        evaluate=evaluate,
    )


def _publishers(
    config: TrainConfig, learner: LearnerGroup, groups: dict[Source, RolloutGroup], lock: asyncio.Lock
) -> dict[Channel, Publisher]:
    """One for each group of engines, on the channel of the same name."""
    channels: dict[Source, Channel] = {"policy": "policy", "teacher": "teacher"}
    return {
        channels[source]: Publisher(
            channels[source],
            learner,
            group,
            settings=config.publish,
            backend=placement.weight_backend(config),
            learner_lock=lock,
        )
        for source, group in groups.items()
    }


def _group(
    config: TrainConfig,
    inputs: Inputs,
    source: Source,
    num_actors: int,
    buffer: ActorHandle[Any],
    incarnation: int,
    updates: int,
    room: placement.Reservation,
) -> RolloutGroup:
    rollout, engine = config.rollout, config.engine_of(source)
    context = EngineContext(
        settings=engine,
        model_path=config.model_folder,
        max_model_len=inputs.max_model_len,
        device="cuda" if rollout.gpus_per_actor > 0 else "cpu",
        version=Version(incarnation=incarnation, updates=updates),
        inflight=config.inflight.mode,
    )
    remote = ray.remote(
        num_cpus=rollout.cpus_per_actor,
        num_gpus=rollout.gpus_per_actor,
        resources=rollout.resources,
        max_concurrency=10_000,
        runtime_env=placement.process_environment(
            engine.threads, python=engine.python if ENGINES[engine.kind].python_of == "actor" else None
        ),
    )(PlacedRolloutActor)

    def make(index: int, restart: int) -> Any:
        return remote.options(**room.options(source, index)).remote(
            actor_id=f"{source}-{index}" + (f"-restart{restart}" if restart else ""),
            source=source,
            context=context,
            system_prompt=config.data.system_prompt,
            buffer=buffer,
            fallbacks=config.vote.fallbacks,
        )

    return RolloutGroup(source, make, num_actors=num_actors, max_restarts=rollout.max_restarts, start_timeout_s=300.0)


def _cursor(config: TrainConfig, inputs: Inputs, state: dict[str, Any]) -> QuestionCursor:
    """Where the order of questions stands; what was asked and not consumed is asked again first."""
    per_update, questions = config.train.questions_per_update, inputs.prepared.questions
    if not state:
        return QuestionCursor(len(questions), config.train.seed, drop_remainder_of=per_update)
    cursor = QuestionCursor.restore(state["cursor"], num_questions=len(questions), seed=config.train.seed)
    places = {question.id: index for index, question in enumerate(questions)}
    pending = [AskedId(question_id=question_id, epoch=epoch) for question_id, epoch in state["buffer"]["pending"]]
    cursor.give_back((asked.epoch, places[asked.question_id]) for asked in pending)
    return cursor


async def _evaluate(config: TrainConfig, inputs: Inputs, policy: RolloutGroup, *, quick: bool) -> EvalResult | None:
    """Held-out accuracy of the policy engines' present weights; None without held-out questions."""
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
    return score_completions(await policy.sample(tasks), inputs.heldout_gold, n=config.eval.samples)
