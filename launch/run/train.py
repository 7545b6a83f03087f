"""One training run from a configuration: reads the data, places the actors, runs the controller, leaves a run directory.

`run_training` is what `corewarding train` and `corewarding resume` call. Everything that can be wrong with the input is
found before an actor is started.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import ray

from corewarding.dataflow.errors import RunError, RunStoppedError, UserError
from corewarding.dataflow.ids import Version
from corewarding.evals.heldout import EvalResult
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.log import Watch
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.report.summary import build_summary, print_summary, write_summary
from corewarding.launch.report.terminal import Terminal, introduce
from corewarding.launch.report.trace import merged
from corewarding.launch.run import placement
from corewarding.launch.run.controller import Controller
from corewarding.launch.run.inputs import Inputs, read_inputs
from corewarding.launch.run.parts import place
from corewarding.launch.run.plans import admission_limits
from corewarding.learner.checkpoint import Checkpoint, CheckpointStore


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
    introduce(config, inputs, run_dir, resumes_after=checkpoint.update if checkpoint else None)
    placement.connect(config)
    try:
        asyncio.run(_run(config, inputs, run_dir, store, checkpoint, began))
    except RunStoppedError:
        raise
    except RunError as error:
        saved = store.latest()
        remedy = (
            f"`corewarding resume {run_dir.path}` goes on after update {saved.update}"
            if saved
            else "no checkpoint was made yet"
        )
        raise RunStoppedError(f"{getattr(error, 'cause', error)}\n{remedy}") from error
    finally:
        ray.shutdown()
    return 0


def check_training(config: TrainConfig) -> int:
    """What `--dry-run` does: everything a run checks before it starts an actor, and writes nothing that stays."""
    inputs = read_inputs(config)
    admission_limits(config)
    introduce(config, inputs, RunDir(config.run.root, config.run.name), resumes_after=None)
    placement.connect(config)
    try:
        nodes = asyncio.run(_check_cluster(config))
    finally:
        ray.shutdown()
    print(f"nothing was started; the configuration can run here ({', '.join(nodes)})")
    return 0


async def _check_cluster(config: TrainConfig) -> list[str]:
    room = await placement.reserve(config)
    print("; ".join(f"{kind} on {', '.join(nodes)}" for kind, nodes in room.where().items()))
    room.release()
    return await placement.probe(config)


async def _run(
    config: TrainConfig,
    inputs: Inputs,
    run_dir: RunDir,
    store: CheckpointStore,
    checkpoint: Checkpoint | None,
    began: float,
) -> None:
    room = await placement.reserve(config)
    if len(ray.nodes()) > 1:
        await placement.probe(config)
        print("; ".join(f"{kind} on {', '.join(nodes)}" for kind, nodes in room.where().items()), flush=True)
    state: dict[str, Any] = checkpoint.state if checkpoint else {}
    updates = state.get("updates", 0)
    with Terminal(total_updates=config.train.updates, resumed_at=updates) as terminal:
        watch = Watch(run_dir, terminal, total_updates=config.train.updates, resumed_at=updates)
        terminal.phase("starting the actors")
        parts = await place(config, inputs, store, watch, checkpoint, room)
        before = EvalResult.from_dict(state["before"]) if state.get("before") else None
        version = Version(incarnation=parts.learner.incarnation, updates=updates)
        controller = Controller(parts, version=version, before=before)
        try:
            await controller.run()
            labels = await parts.buffer.answers_read()
        finally:
            watch.close()
            for group in parts.groups.values():
                await group.close()
            await parts.learner.close()
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
        print(f"stopped early: {controller.stopped_early}")
    if controller.collapse.stops:
        raise RunStoppedError(
            f"{controller.collapse.stops}\nlook at {run_dir.samples}; lower train.lr, raise kl.coef or vote.min_share, "
            "lower staleness.max, or choose a rule whose labels come from elsewhere (co_rewarding_i, _ii, _iii)"
        )


def _measured(controller: Controller, watch: Watch) -> dict[str, Any]:
    """What the run's own clocks say."""
    clock, spans = controller.clock, controller.spans
    elapsed = max(clock.ended_s - clock.started_s, 1e-9)
    sampling = merged(spans)
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
