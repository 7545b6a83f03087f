"""Checkpoints are written beside the training: what waits for what, and what a failed one does."""

import asyncio
import errno

import pytest

from corewarding.dataflow.errors import RunError
from corewarding.evals.heldout import EvalResult
from corewarding.launch.run.cadence import CheckpointWriteError
from corewarding.launch.run.ending.supervision import StalledError


async def test_updates_go_on_while_a_checkpoint_is_written_and_the_next_waits_for_it(world_of):
    world = world_of(train={"updates": 6}, checkpoint={"every_updates": 2})
    world.learner.saving.close()
    _, running = world.start()
    await world.until(lambda: ("update ends", 4) in world.events)
    await world.settled()
    assert world.of("stage", "commit") == [("stage", 2)]
    assert ("update begins", 5) not in world.events
    world.learner.saving.open()
    await running
    assert world.of("stage", "commit") == [
        *(("stage", 2), ("commit", 2), ("stage", 4), ("commit", 4), ("stage", 6), ("commit", 6)),
    ]


async def test_a_run_ends_when_its_last_checkpoint_is_committed(world_of):
    world = world_of()
    world.learner.saving.close()
    _, running = world.start()
    await world.until(lambda: ("stage", 3) in world.events)
    await world.settled()
    assert not running.done()
    assert world.log.evaluations == [("before", 0)]
    world.learner.saving.open()
    await running
    assert world.of("commit") == [("commit", 3)]


async def test_a_stop_waits_for_the_checkpoint_under_way(world_of):
    from corewarding.launch.run.ending.stopping import StopRequest

    stop = StopRequest()
    world = world_of(train={"updates": 50}, checkpoint={"every_updates": 1})
    world.learner.saving.close()
    _, running = world.start(stop=stop)
    await world.until(lambda: ("stage", 1) in world.events)
    stop.ask("SIGTERM")
    await world.settled()
    assert not running.done()
    world.learner.saving.open()
    await running
    staged, committed = world.of("stage"), world.of("commit")
    assert [event[1] for event in staged] == [event[1] for event in committed]
    assert committed[-1][1] == world.learner.weights.updates


async def saving_when_the_policy_fails(world_of, **run):
    """A run whose publication fails while its first checkpoint is being written."""
    world = world_of(train={"updates": 9}, checkpoint={"every_updates": 1}, run=run)
    world.learner.saving.close()
    _, running = world.start()
    await world.until(lambda: ("stage", 1) in world.events)
    world.workers["policy"].error = world.publishers["policy"].error = RunError("no receiver is left")
    return world, running


async def test_a_run_that_fails_finishes_the_checkpoint_under_way(world_of):
    world, running = await saving_when_the_policy_fails(world_of)
    await world.until(
        lambda: any("checkpoint of update 1 may take 30 s (run.grace_s)" in text for text in world.log.said)
    )
    await world.settled()
    assert not running.done()
    world.learner.saving.open()
    with pytest.raises(RunError, match="no receiver is left"):
        await running
    assert world.of("stage", "commit") == [("stage", 1), ("commit", 1)]


async def test_a_checkpoint_that_takes_too_long_is_given_up_when_the_run_fails(world_of):
    world, running = await saving_when_the_policy_fails(world_of, grace_s=0.05)
    with pytest.raises(RunError, match="no receiver is left"):
        await running
    assert world.of("commit") == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_checkpoint_that_fails_too_does_not_hide_the_first_error(world_of):
    world, running = await saving_when_the_policy_fails(world_of)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    world.folders.commit = full
    await world.until(lambda: any("run.grace_s" in text for text in world.log.said))
    world.learner.saving.open()
    with pytest.raises(RunError, match="no receiver is left"):
        await running
    assert world.of("give up") == [("give up", "writing-1")]


async def test_a_run_in_which_nothing_moves_does_not_wait_for_its_checkpoint(world_of):
    world = world_of(checkpoint={"every_updates": 1}, run={"watchdog_s": 0.2})
    world.learner.saving.close()
    with pytest.raises(StalledError):
        await world.run()
    assert world.of("commit") == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("during", ["begin", "write", "export", "commit"])
async def test_a_full_disk_ends_the_run_with_its_name_and_nothing_half_written(world_of, during):
    world = world_of(train={"updates": 9}, checkpoint={"every_updates": 2})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    async def full_later(*_):
        await asyncio.sleep(0)
        full()

    if during in ("begin", "commit"):
        setattr(world.folders, during, full)
    else:
        setattr(world.learner, during, full_later)
    with pytest.raises(CheckpointWriteError, match=r"checkpoint of update 2 could not be written: .*No space left"):
        await world.run()
    assert world.of("commit") == []
    assert world.of("give up") == ([] if during == "begin" else [("give up", "writing-2")])
    assert len(world.of("update ends")) < 9


async def test_quick_evaluations_are_scores(world_of):
    world = world_of(eval={"every_updates": 1}, checkpoint={"every_updates": 1, "keep_best": 1})
    await world.run()
    assert world.of("score") == [("score", 1, 0.5), ("score", 2, 0.5)]


def test_weights_are_compared_by_their_samples_if_there_are_any():
    assert EvalResult(num_questions=1, n=8, greedy=0.5).score == 0.5
    assert EvalResult(num_questions=1, n=8, greedy=0.5, mean=0.25).score == 0.25
