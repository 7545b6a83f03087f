"""Starts the parts of a run and ends them: the replay buffer, the learner's ranks, the rollout groups and their publishers."""

from __future__ import annotations

import itertools
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from ray.actor import ActorHandle

from corewarding.actors.engine import EngineContext, engine_seed
from corewarding.actors.engines import ENGINES
from corewarding.actors.group import RolloutGroup, RolloutGroupError
from corewarding.actors.member import gather_all, log_of
from corewarding.actors.rollout_actor import PlacedRolloutActor
from corewarding.dataflow.carriers import Completion, RolloutTask
from corewarding.dataflow.ids import Channel, Source, Version
from corewarding.dataflow.process import settle
from corewarding.evals.heldout import EvalResult, score_completions
from corewarding.evals.tasks import evaluation_tasks
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.report.statistics import Moment
from corewarding.launch.run import placement
from corewarding.launch.run.ending.supervision import all_start
from corewarding.launch.run.inputs import Inputs
from corewarding.launch.run.journal.beginning import Beginning, beginning, logs_of, ready, returning_learner
from corewarding.launch.run.journal.resume import Resumption
from corewarding.launch.run.journal.start import journal_plan
from corewarding.launch.run.plans import buffer_plan
from corewarding.launch.run.preflight.needs import process_environment, weight_backend
from corewarding.launch.run.protocols import Log, Parts
from corewarding.launch.run.publishing.publisher import Publisher
from corewarding.launch.run.publishing.transfer import ChannelLearner
from corewarding.launch.run.publishing.turns import LearnerTurns
from corewarding.learner.checkpoint.store import Checkpoint, CheckpointStore
from corewarding.learner.replay.actor import BufferActor, start_buffer
from corewarding.learner.replay.client import BufferClient

BUFFER_LOG = "buffer.log"


@asynccontextmanager
async def placed(
    config: TrainConfig,
    inputs: Inputs,
    store: CheckpointStore,
    log: Log,
    checkpoint: Checkpoint | None,
    room: placement.Reservation,
    resumption: Resumption | None = None,
) -> AsyncIterator[Parts]:
    """Starts all actors, the learner with the weights of the checkpoint or of the journal's last update, and ends them when the
    context is left."""
    begin = await beginning(config, inputs, log, checkpoint, room, resumption)
    learner, version = returning_learner(config, begin, store, log, room), begin.version
    buffer = _buffer(config, inputs, begin)
    groups = {
        source: rollout_group(config, inputs, source, num, buffer=buffer, version=version, room=room)
        for source, num in _num_actors(config, inputs).items()
    }
    turns = LearnerTurns()
    publishers = _publishers(config, learner, groups, turns)

    async def evaluate(moment: Moment) -> EvalResult | None:
        alike = [group for source, group in groups.items() if config.engine_of(source) == config.engine]
        initial = moment == "before" and version.updates == 0  # until an update, the teacher's weights are the policy's
        having = [group for group in alike if initial or publishers[group.source].weights == "policy"]
        return await _evaluate(config, inputs, having, quick=moment == "quick", said=log.warn)

    try:
        starts = [group.start() for group in groups.values()]
        if resumption is None:
            starts.append(ready(config, begin.learner, log, checkpoint, version.incarnation))
        await all_start(logs_of(config), *starts)
        settle()
        client = BufferClient(buffer, log=logs_of(config) / BUFFER_LOG, said=log.warn)
        if resumption is not None:
            resumption.write_missing(log)
            for result in resumption.redone:
                await client.updated(result.version.updates, result.digest)
        yield Parts(
            config=config,
            version=version,
            rule=inputs.rule,
            prepared=inputs.prepared,
            cursor=begin.cursor,
            buffer=client,
            learner=learner,
            turns=turns,
            groups=groups,
            publishers=publishers,
            checkpoints=store,
            log=log,
            unanswered=() if resumption is None else resumption.unanswered,
            num_redone=0 if resumption is None else len(resumption.redone),
            initial_answers=RunDir(config.run.root, config.run.name).initial_answers,
            evaluate=evaluate,
        )
    finally:
        for group in groups.values():
            await group.close()
        await learner.close()


def _buffer(config: TrainConfig, inputs: Inputs, begin: Beginning) -> ActorHandle[BufferActor]:
    return start_buffer(
        buffer_plan(config, begin.version.incarnation, known=inputs.known),
        inputs.gold,
        begin.buffer,
        runtime_env=process_environment(1),
        log=logs_of(config) / BUFFER_LOG,
        journal=journal_plan(config, begin.version, begin.cursor.state(), goes_on=begin.goes_on),
        max_restarts=config.journal.max_restarts if config.keeps_journal else 0,
    )


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
    kind = ENGINES[engine.kind]
    python = engine.python if kind.python_of == "actor" else None
    if kind.python_of is not None:  # what it sets before its libraries are imported comes too late in a fork
        python = python or sys.executable
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
        actor_id = log_of(logs, source, index, restart).stem
        return remote.options(**room.options(source, index)).remote(
            actor_id=actor_id,
            log=log_of(logs, source, index, restart),
            source=source,
            context=replace(context, seed=engine_seed(config.train.seed, actor_id, version.incarnation)),
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


def _publishers(
    config: TrainConfig, learner: ChannelLearner, groups: Mapping[Source, RolloutGroup], turns: LearnerTurns
) -> dict[Channel, Publisher]:
    """One publisher for each group, on the channel of the same name."""
    return {
        source: Publisher(
            source,
            learner,
            group,
            settings=config.publish,
            backend=weight_backend(config),
            turns=turns,
        )
        for source, group in groups.items()
    }


async def _evaluate(
    config: TrainConfig, inputs: Inputs, groups: Sequence[RolloutGroup], *, quick: bool, said: Callable[[str], None]
) -> EvalResult | None:
    """Held-out accuracy of the weights that the engines of these groups hold now; None without held-out questions.

    The policy's engines also answer the share of a group that has lost its own."""
    if inputs.heldout is None:
        return None
    samples = config.eval.quick_samples if quick else config.eval.samples
    tasks = evaluation_tasks(
        inputs.heldout,
        num_questions=config.eval.quick_questions if quick else config.eval.num_questions,
        samples=samples,
        temperature=config.eval.temperature,
        max_new_tokens=config.rollout.max_new_tokens,
        seed=config.train.seed,
    )
    sizes = [_num_actors(config, inputs)[group.source] for group in groups]
    cuts = [len(tasks) * sum(sizes[:index]) // sum(sizes) for index in range(len(sizes) + 1)]
    shares = [tasks[start:end] for start, end in itertools.pairwise(cuts)]
    (policy,) = (group for group in groups if group.source == "policy")

    async def sampled(group: RolloutGroup, share: Sequence[RolloutTask]) -> list[Completion]:
        try:
            return await group.sample(share)
        except RolloutGroupError as error:
            if group is policy:
                raise
            said(f"the policy's engines answer in the {group.source}'s place: {error}")
            return await policy.sample(share)

    completions = await gather_all(*(sampled(group, share) for group, share in zip(groups, shares, strict=True)))
    return score_completions(
        [completion for share in completions for completion in share],
        inputs.heldout_gold,
        n=samples or config.eval.samples,
        units=config.vote.units,
    )
