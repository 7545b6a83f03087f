"""`corewarding replay`: the weights of a run rebuilt from its starting weights and its journal, without engines."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corewarding.dataflow.errors import UserError
from corewarding.dataflow.ids import Channel
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.changes import changes_between
from corewarding.launch.report.plain import say
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.run.inputs import located, read_inputs
from corewarding.launch.run.journal.redo import Comparison, redo
from corewarding.launch.run.journal.start import setting
from corewarding.launch.run.journal.what_if import WhatIf, refuse_unsampled
from corewarding.launch.run.model_record import recorded_revision
from corewarding.launch.run.placement import connected
from corewarding.launch.run.plans import learner_plan
from corewarding.launch.run.preflight.model import find_model
from corewarding.launch.run.preflight.needs import joins_cluster, process_environment
from corewarding.launch.run.train import run_to_end
from corewarding.learner.checkpoint.store import Checkpoint, CheckpointStore
from corewarding.learner.group import LearnerGroup
from corewarding.learner.replay.journal.history import History
from corewarding.learner.settings import LearnerPlan

SAY_EVERY = 10
"""Updates between two lines."""


class ReplayError(UserError):
    """The run cannot be replayed as asked."""


@dataclass(slots=True, kw_only=True)
class Replayed:
    """What a replay found."""

    base: str  # the weights that it began with
    updates: int  # in the weights at its end
    comparison: Comparison
    differences: list[str] = field(default_factory=list)  # of this setting from the run's
    what_if: WhatIf | None = None


def replay_plan(run_dir: RunDir, until: int | None) -> tuple[History, Checkpoint | None, int]:
    """(the journal, the checkpoint to begin with or None for the starting weights, the last update). ReplayError if one lacks."""
    if not run_dir.journal.is_dir():
        raise ReplayError(f"{run_dir.path} holds no journal; runs keep one unless journal.retain is off")
    history = History.of(run_dir.journal)
    last = history.last if until is None else until
    if not 1 <= last <= history.last:
        raise ReplayError(f"--until {last}: the journal of {run_dir.path} knows the updates 1 to {history.last}")
    if history.first == 1:
        return history, None, last
    checkpoints = [
        one for one in CheckpointStore(run_dir.checkpoints, keep=1).valid() if one.update >= history.first - 1
    ]
    if not checkpoints or checkpoints[0].update >= last:
        held = f"from update {checkpoints[0].update} on" if checkpoints else "no more"
        raise ReplayError(
            f"update {last} of {run_dir.path} cannot be rebuilt: the journal begins with update {history.first} and there are "
            f"checkpoints {held}; journal.retain: all keeps everything"
        )
    return history, checkpoints[0], last


def replay_here(
    run_dir: RunDir, *, then: TrainConfig, now: TrainConfig, until: int | None = None, out: Path | None = None
) -> Replayed:
    """Replays on this machine, or on the cluster that was joined. then: the run's configuration; now: the one to replay with.

    ReplayError, WhatIfError or JournalError if the run cannot be replayed as asked.
    """
    replay_plan(run_dir, until)
    changes = changes_between(then.model_dump(mode="json"), now)
    what_if = None
    if changes:
        refuse_unsampled(changes, then=then, now=now)
        inputs = read_inputs(now, revision=recorded_revision(run_dir.path, now.model.path))
        what_if = WhatIf(changes=changes, config=now, gold=inputs.gold, known=inputs.known)
    config = located(now, find_model(now, revision=recorded_revision(run_dir.path, now.model.path)))
    with connected(config):
        return run_to_end(_replay(config, run_dir, until=until, out=out, what_if=what_if))


async def _replay(
    config: TrainConfig, run_dir: RunDir, *, until: int | None, out: Path | None, what_if: WhatIf | None
) -> Replayed:
    history, checkpoint, last = replay_plan(run_dir, until)
    base = "the starting weights" if checkpoint is None else f"the checkpoint of update {checkpoint.update}"
    after = 0 if checkpoint is None else checkpoint.update
    comparison = Comparison()
    found = Replayed(
        base=base,
        updates=last,
        comparison=comparison,
        differences=setting_differences(history.starts[-1].setting, setting(config)),
        what_if=what_if,
    )
    learner = replay_ranks(config, learner_plan(config), history.starts[-1].incarnation)
    try:
        await learner.start(config.learner.start_timeout_s)
        if checkpoint is not None:
            await learner.load(checkpoint.learner, history.starts[-1].incarnation)
        if what_if is not None:
            what_if.learner = learner
        batch_of = None if what_if is None else what_if.batch
        async for one in redo(learner, history, after=after, until=last, comparison=comparison, batch_of=batch_of):
            update = one.batch.update
            if what_if is not None:
                what_if.made(one.result)
            if update % SAY_EVERY == 0 or update == last:
                say(f"update {update} of {last}")
        if out is not None:
            await _export(learner, out, keeps_teacher=config.keeps_teacher)
    finally:
        await learner.close()
    return found


def setting_differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What may make weights differ although nothing is wrong."""
    flat = [(key, then.get(key), now.get(key)) for key in sorted({*then, *now})]
    return [f"{key}: {old} then, {new} now" for key, old, new in flat if old != new]


def replay_ranks(config: TrainConfig, plan: LearnerPlan, incarnation: int) -> LearnerGroup:
    """Ranks as those of the run, which are not started yet."""
    return LearnerGroup(
        plan,
        incarnation=incarnation,
        bucket_bytes=int(config.publish.bucket_mb * 2**20),
        wire_dtype=config.engine.dtype,
        runtime_env=process_environment(config.learner.threads),
        loopback=not joins_cluster(),
    )


async def _export(learner: LearnerGroup, out: Path, *, keeps_teacher: bool) -> None:
    """Writes policy and, if there is one, teacher."""
    written = out / ".learner"
    written.mkdir(parents=True)
    await learner.stage()
    await learner.write(written)
    channels: tuple[Channel, ...] = ("policy", "teacher") if keeps_teacher else ("policy",)
    for channel in channels:
        await learner.export(written, out / channel, channel)
    shutil.rmtree(written)
