"""`--recompute`: what the learner made of every token of some updates, from the journal, without engines.

The ranks make the updates again, as in a replay, and write the token log of those that are asked for.
"""

from __future__ import annotations

import dataclasses

from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.run.inputs import located
from corewarding.launch.run.journal.redo import Comparison, redo
from corewarding.launch.run.journal.replay import Replayed, ReplayError, replay_ranks, setting_differences
from corewarding.launch.run.journal.start import setting
from corewarding.launch.run.model_record import recorded_revision
from corewarding.launch.run.placement import connected
from corewarding.launch.run.plans import learner_plan
from corewarding.launch.run.preflight.model import find_model
from corewarding.launch.run.train import run_to_end
from corewarding.learner.checkpoint.store import Checkpoint, CheckpointStore
from corewarding.learner.replay.journal.history import History
from corewarding.learner.token_log.entries import recomputed
from corewarding.learner.token_log.plan import TokenLogPlan


def recompute_plan(run_dir: RunDir, first: int, last: int) -> tuple[History, Checkpoint | None]:
    """(the journal, the newest checkpoint before update `first`, or None for the starting weights). ReplayError if one lacks."""
    history = History.of(run_dir.journal)
    if not 1 <= first <= last <= history.last:
        asked = f"--update {first}" if first == last else f"--update-from {first} --update-to {last}"
        raise ReplayError(
            f"{asked}: the journal of {run_dir.path} holds the updates {history.first} to {history.last}; choose among them"
        )
    checkpoints = [
        one
        for one in CheckpointStore(run_dir.checkpoints, keep=1).valid()
        if history.first - 1 <= one.update <= first - 1
    ]
    if checkpoints:
        return history, checkpoints[-1]
    if history.first == 1:
        return history, None
    raise ReplayError(
        f"--recompute: update {first} of {run_dir.path} cannot be made again: the journal begins with update {history.first}, and no "
        f"checkpoint from there up to update {first - 1} is kept; journal.retain: all keeps everything"
    )


def recompute_here(run_dir: RunDir, config: TrainConfig, *, first: int, last: int) -> Replayed:
    """Makes the updates again on this machine, or on the cluster that was joined. ReplayError or JournalError if that cannot be."""
    recompute_plan(run_dir, first, last)
    found = located(config, find_model(config, revision=recorded_revision(run_dir.path, config.model.path)))
    with connected(found):
        return run_to_end(_recompute(found, run_dir, first, last))


async def _recompute(config: TrainConfig, run_dir: RunDir, first: int, last: int) -> Replayed:
    history, checkpoint = recompute_plan(run_dir, first, last)
    made = Replayed(
        base="the starting weights" if checkpoint is None else f"the checkpoint of update {checkpoint.update}",
        updates=last,
        comparison=Comparison(),
        differences=setting_differences(history.starts[-1].setting, setting(config)),
    )
    log = TokenLogPlan(folder=str(recomputed(run_dir.tokens).absolute()), questions=None, first=first, last=last)
    incarnation = history.starts[-1].incarnation
    learner = replay_ranks(config, dataclasses.replace(learner_plan(config), token_log=log), incarnation)
    try:
        await learner.start(config.learner.start_timeout_s)
        if checkpoint is not None:
            await learner.load(checkpoint.learner, incarnation)
        after = 0 if checkpoint is None else checkpoint.update
        async for _ in redo(learner, history, after=after, until=last, comparison=made.comparison):
            pass
    finally:
        await learner.close()
    return made
