"""One training run from a configuration: reads the data, places the actors, runs the controller, leaves a run directory.

`run_training` is what `corewarding train` and `corewarding resume` call. Everything that can be wrong with the input is
found before an actor is started.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import ray
import torch
from ray.actor import ActorHandle

from actors.group import RolloutGroup
from actors.rollout_actor import PlacedRolloutActor
from dataflow.types import AskedId, Channel, Source, Version
from evals.heldout import EvalResult, score_completions
from evals.tasks import evaluation_tasks
from launch import placement
from launch.config import TrainConfig
from launch.controller import Controller, Parts
from launch.errors import UserError
from launch.inputs import Inputs, read_inputs
from launch.plans import admission_limits, buffer_plan, learner_plan
from launch.publisher import Publisher
from launch.run_dir import RunDir
from launch.summary import build_summary, print_summary, write_summary
from launch.watch import Watch
from learner.buffer import ReplayBuffer
from learner.checkpoint import Checkpoint, CheckpointStore
from learner.group import LearnerGroup
from questions.order import QuestionCursor


def run_training(config: TrainConfig) -> int:
    """Trains, evaluates and leaves a run directory; 0 when it ended as configured. Whatever the input lacks is found first."""
    began = time.time()
    inputs = read_inputs(config)
    admission_limits(config)
    run_dir = RunDir(config.run.root, config.run.name)
    resuming = run_dir.open(config)
    store = CheckpointStore(run_dir.checkpoints, config.checkpoint.keep)
    checkpoint = store.latest() if resuming else None
    if config.run.resume == "must" and checkpoint is None:
        raise UserError(f"{run_dir.path} has no committed checkpoint to resume from; remove the folder and train again")
    _introduce(config, inputs, run_dir, checkpoint)
    placement.connect(config)
    try:
        asyncio.run(_run(config, inputs, run_dir, store, checkpoint, began))
    finally:
        ray.shutdown()
    return 0


async def _run(
    config: TrainConfig,
    inputs: Inputs,
    run_dir: RunDir,
    store: CheckpointStore,
    checkpoint: Checkpoint | None,
    began: float,
) -> None:
    await placement.check(config)
    state = checkpoint.state if checkpoint else None
    incarnation = state["incarnation"] + 1 if state else 0
    updates = state["updates"] if state else 0
    watch = Watch(run_dir, total_updates=config.train.updates, resumed_at=updates)
    parts = await _place(config, inputs, store, watch, incarnation, checkpoint)
    before = EvalResult.from_dict(state["before"]) if state and state["before"] else None
    controller = Controller(parts, version=Version(incarnation=incarnation, updates=updates), before=before)
    try:
        await controller.run()
        labels = await parts.buffer.gold_reads.remote()
        summary = build_summary(
            config,
            updates=controller.version.updates,
            wall_s=time.time() - began,
            labels_read=labels,
            before=controller.before,
            after=controller.after,
            measured=_measured(controller, watch),
        )
        write_summary(run_dir, summary)
        latest = store.latest()
        print_summary(run_dir, summary, str(latest.model if latest else "no checkpoint"))
        if controller.stopped_early:
            watch.say(f"stopped early: {controller.stopped_early}")
    finally:
        watch.close()
        for group in parts.groups.values():
            await group.close()
        await parts.learner.close()


async def _place(
    config: TrainConfig,
    inputs: Inputs,
    store: CheckpointStore,
    watch: Watch,
    incarnation: int,
    checkpoint: Checkpoint | None,
) -> Parts:
    """Starts all actors; the learner holds the checkpoint's weights when this returns."""
    state = checkpoint.state if checkpoint else None
    updates = state["updates"] if state else 0
    buffer = (
        ray.remote(num_cpus=0, max_concurrency=1000, runtime_env=placement.process_environment(1))(ReplayBuffer)
        .remote(buffer_plan(config, incarnation), inputs.gold, state["buffer"] if state else None)
    )  # fmt: skip
    learner = LearnerGroup(
        learner_plan(config),
        incarnation=incarnation,
        bucket_bytes=int(config.publish.bucket_mb * 2**20),
        wire_dtype=config.engine.dtype,
        runtime_env=placement.process_environment(config.learner.threads),
    )
    rule = inputs.rule
    sources: dict[Source, int] = {"policy": config.rollout.policy_actors}
    if rule.needs_teacher:
        sources["teacher"] = config.rollout.teacher_actors
    groups = {
        source: _group(config, inputs, source, num, buffer, incarnation, updates) for source, num in sources.items()
    }
    await asyncio.gather(learner.start(), *(group.start() for group in groups.values()))
    if checkpoint is not None:
        await learner.load(checkpoint.learner, incarnation)
    lock = asyncio.Lock()
    nccl = config.learner.gpus_per_rank > 0 and config.rollout.gpus_per_actor > 0
    channels: dict[Source, Channel] = {"policy": "policy", "teacher": "teacher"}
    publishers = {
        channels[source]: Publisher(
            channels[source],
            learner,
            group,
            settings=config.publish,
            backend="nccl" if nccl else "gloo",
            learner_lock=lock,
        )
        for source, group in groups.items()
    }

    async def evaluate(quick: bool) -> EvalResult | None:
        return await _evaluate(config, inputs, groups["policy"], quick=quick)

    return Parts(
        config=config,
        rule=rule,
        prepared=inputs.prepared,
        cursor=_cursor(config, inputs, state),
        learner=learner,
        groups=groups,
        publishers=publishers,
        buffer=buffer,
        learner_lock=lock,
        checkpoints=store,
        watch=watch,
        evaluate=evaluate,
    )


def _group(
    config: TrainConfig,
    inputs: Inputs,
    source: Source,
    num_actors: int,
    buffer: ActorHandle[Any],
    incarnation: int,
    updates: int,
) -> RolloutGroup:
    rollout = config.rollout
    remote = ray.remote(
        num_cpus=rollout.cpus_per_actor,
        num_gpus=rollout.gpus_per_actor,
        max_concurrency=10_000,
        runtime_env=placement.process_environment(config.engine.threads),
    )(PlacedRolloutActor)

    def make(index: int, restart: int) -> Any:
        return remote.remote(
            actor_id=f"{source}-{index}" + (f"-restart{restart}" if restart else ""),
            source=source,
            settings=config.engine,
            model_path=config.model_folder,
            system_prompt=config.data.system_prompt,
            max_model_len=inputs.max_model_len,
            device="cuda" if rollout.gpus_per_actor > 0 else "cpu",
            buffer=buffer,
            incarnation=incarnation,
            initial_updates=updates,
        )

    return RolloutGroup(source, make, num_actors=num_actors, max_restarts=rollout.max_restarts, start_timeout_s=300.0)


def _cursor(config: TrainConfig, inputs: Inputs, state: dict[str, Any] | None) -> QuestionCursor:
    """Where the order of questions stands; what was asked and not consumed is asked again first."""
    per_update, questions = config.train.questions_per_update, inputs.prepared.questions
    if state is None:
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


def _measured(controller: Controller, watch: Watch) -> dict[str, Any]:
    """What the run's own clocks say."""
    clock, spans = controller.clock, controller.spans
    elapsed = max(clock.ended_s - clock.started_s, 1e-9)
    sampling = _merged(spans)
    overlap = sum(
        max(0.0, min(end, stop) - max(begin, start)) for begin, end in clock.update_spans for start, stop in sampling
    )
    idle = {
        source: [one[source] for one in controller.idle] for source in (controller.idle[0] if controller.idle else {})
    }
    return {
        "train_wall_s": elapsed,
        "completions_per_s": controller.num_trained_here / elapsed,
        "learner_idle_frac": clock.waited_s / elapsed,
        "learner_update_s": clock.updating_s,
        "publish_s": clock.publishing_s,
        "actors_idle_frac": {source: sum(values) / len(values) for source, values in idle.items()},
        "overlap_frac": overlap / max(clock.updating_s, 1e-9),
        "staleness_mean": sum(mean for mean, _ in watch.staleness) / max(1, len(watch.staleness)),
        "staleness_max": max((most for _, most in watch.staleness), default=0.0),
    }


def _merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The union of intervals as disjoint intervals."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _introduce(config: TrainConfig, inputs: Inputs, run_dir: RunDir, checkpoint: Checkpoint | None) -> None:
    """What is about to run: the sizes that follow from the configuration; the resolved file is in the run directory."""
    prepared = inputs.prepared
    facts = {
        "rule": config.rule,
        "model": config.model_folder,
        "questions": f"{len(prepared.questions)} ({prepared.num_dropped} dropped: longer than {config.data.max_prompt_tokens} tokens)",
        **config.derived(),
        "longest prompt + completion": f"{inputs.max_model_len} tokens",
        "torch": torch.__version__,
        "run directory": str(run_dir.path),
        "resolved configuration": str(run_dir.config),
    }
    if checkpoint is not None:
        facts["resumes"] = f"after update {checkpoint.update}"
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}", flush=True)
