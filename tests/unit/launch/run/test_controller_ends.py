"""The controller over fakes, without Ray: what ends a run, and what it leaves."""

import asyncio
import logging

import pytest

from corewarding.dataflow.errors import RunError, TaskFailedError
from corewarding.dataflow.ids import AskedId
from corewarding.launch.run.ending.supervision import LoopEndedError, StalledError, Watchdog
from corewarding.launch.run.feed import FailedQuestionsError


async def test_the_watchdog_names_who_waits_for_whom(world_of):
    world = world_of(run={"watchdog_s": 0.1})
    world.workers["teacher"].sampling.close()
    with pytest.raises(StalledError) as stalled:
        await world.run()
    message = str(stalled.value)
    assert "no ready question" in message
    assert "teacher actors: teacher-0 has 4 tasks" in message
    assert "policy actors: policy-0 has 0 tasks" in message
    assert "waits for 4" in message
    assert "/e0" in message  # the questions


async def test_the_watchdog_sees_a_learner_that_hangs(world_of):
    world = world_of(run={"watchdog_s": 0.1})
    world.learner.updating.close()
    with pytest.raises(StalledError, match=r"learner: weights 0\.0, update for 0 s\n  buffer: 1 batches"):
        await world.run()


async def test_updates_are_progress_for_the_watchdog(world_of):
    world = world_of(depth=6, run={"watchdog_s": 0.5}, train={"updates": 6})  # all questions are ready from the start
    world.learner.updating.close()
    _, running = world.start()
    for update in range(1, 7):
        await world.until(lambda update=update: ("update begins", update) in world.events)
        await asyncio.sleep(0.12)
        world.learner.updating.open()
        await world.until(lambda update=update: ("update ends", update) in world.events)
        world.learner.updating.close()
    await running


async def test_wall_time_ends_a_run_early_with_a_checkpoint(world_of):
    world = world_of(run={"max_wall_s": 1e-9}, checkpoint={"every_updates": 1})
    controller = await world.run()
    assert "run.max_wall_s" in controller.stopped_early
    assert controller.version.updates == 1
    assert world.of("commit") == [("commit", 1)]
    assert world.of("logged") == [("logged", 1)]
    assert world.evaluated[-1] == (False, 1, 1)


async def test_wall_time_used_up_by_the_last_update_is_a_normal_end(world_of):
    world = world_of(train={"updates": 1}, run={"max_wall_s": 1e-9})
    controller = await world.run()
    assert controller.stopped_early is None
    assert world.of("commit") == [("commit", 1)]


class ActorsLostError(RunError):
    """Stands for the error of a rollout group without a restart left."""


COLLAPSE = {"patience": 1}


async def test_a_collapse_pauses_the_run_until_a_user_continues(world_of):
    world = world_of(train={"updates": 6}, collapse=COLLAPSE | {"on_collapse": "pause"}, run={"watchdog_s": 0.3})
    world.buffer.no_answer_frac = lambda update: 0.1 if update == 1 else 0.9
    controller, running = world.start()
    await world.until(lambda: any("paused after update" in text for text in world.log.said))
    await asyncio.sleep(0.5)  # longer than the watchdog's patience
    done = controller.version.updates
    assert 2 <= done < 6
    world.log.continue_file.touch()
    await running
    assert controller.version.updates == 6
    assert controller.stopped_early is None
    assert not world.log.continue_file.exists()


async def test_a_collapse_stops_the_run_without_a_checkpoint(world_of):
    world = world_of(train={"updates": 9}, collapse=COLLAPSE | {"on_collapse": "stop"})
    world.buffer.no_answer_frac = lambda update: 0.1 if update == 1 else 0.9
    controller = await world.run()
    assert "collapse.on_collapse is stop" in controller.stopped_early
    assert "collapse.no_answer_frac" in controller.collapse.stops
    assert 2 <= controller.version.updates < 9
    assert world.of("commit") == []
    assert world.of("logged") == [("logged", update) for update in range(1, controller.version.updates + 1)]
    assert world.log.evaluations[-1] == ("after", controller.version.updates)


async def test_a_loop_that_ends_is_an_error_with_its_name(world_of, monkeypatch):
    async def nothing(self):
        return None

    monkeypatch.setattr(Watchdog, "watch", nothing)
    with pytest.raises(LoopEndedError, match="loop watchdog ended before the training did"):
        await world_of().run()


async def test_an_error_of_a_rollout_task_ends_the_run_as_it_is(world_of):
    world = world_of()
    world.workers["teacher"].error = ActorsLostError("teacher-0 is lost")
    with pytest.raises(ActorsLostError, match="teacher-0 is lost"):
        await world.run()
    assert world.of("update begins") == []


def fail(world, *, when):
    """Tasks of the policy fail for good where `when` holds for their question's id."""
    works = world.workers["policy"].run

    async def run(task):
        if when(task.id.asked.question_id):
            raise TaskFailedError(f"task {task.id} failed twice")
        return await works(task)

    world.workers["policy"].run = run


async def test_a_question_whose_task_fails_is_dropped_and_the_run_goes_on(world_of):
    world = world_of()
    first = world.parts.prepared.questions[world.cursor.peek(1)[0][1]].id
    fail(world, when=lambda question_id: question_id == first)
    controller = await world.run()
    assert controller.version.updates == 3
    assert world.of("give up") == [("give up", AskedId(question_id=first, epoch=0))]
    assert [text for text in world.log.said if "is dropped" in text] == [
        f"{first}/e0 is dropped: task {first}/e0/original/policy failed twice"
    ]


async def test_too_many_failed_questions_end_the_run_with_their_cause(world_of):
    world = world_of(rollout={"max_failed_questions": 3})
    fail(world, when=lambda question_id: True)
    cause = r"more than 3 questions \(rollout.max_failed_questions\) failed within 600 s .*; the last one: task .* failed twice"
    with pytest.raises(FailedQuestionsError, match=cause):
        await world.run()
    assert len(world.of("give up")) == 4
    assert world.of("update begins") == []


async def test_an_error_of_a_publication_ends_the_run(world_of):
    world = world_of()
    world.learner.updating.close()
    _, running = world.start()
    await world.until(lambda: ("update begins", 1) in world.events)
    world.publishers["policy"].error = RunError("no receiver is left")
    world.learner.updating.open()
    with pytest.raises(RunError, match="no receiver is left"):
        await running
    assert ("acknowledged", "policy", 1) not in world.events


async def test_a_log_that_cannot_be_written_ends_the_run(world_of):
    world = world_of(train={"updates": 9})
    world.log.error = OSError("no space left on device")
    with pytest.raises(OSError, match="no space left"):
        await world.run()
    assert len(world.of("update ends")) < 9


async def test_nothing_is_left_running_when_a_run_fails(world_of, caplog):
    caplog.set_level(logging.WARNING, "asyncio")
    world = world_of()
    world.workers["policy"].error = RunError("broken")
    with pytest.raises(RunError, match="broken"):
        await world.run()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert [task.get_name() for task in others] == []
    assert caplog.records == []
