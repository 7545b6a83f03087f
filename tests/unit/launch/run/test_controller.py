"""The controller over fakes, without Ray: what may overlap, what must wait, and what ends a run."""

import asyncio
import logging
import subprocess
import sys

import pytest

from corewarding.actors.group import RolloutGroupError
from corewarding.dataflow.errors import RunError
from corewarding.evals.heldout import EvalResult
from corewarding.launch.run.supervision import LoopEndedError, StalledError, Watchdog
from tests.unit.launch.run.fakes import PER_UPDATE, World


@pytest.fixture
def world_of(tmp_path):
    return lambda depth=1, updates=0, **changes: World(tmp_path, changes, depth=depth, updates=updates)


def test_the_controller_needs_neither_ray_nor_torch():
    code = (
        "import sys\nfor name in ('ray', 'torch', 'transformers'): sys.modules[name] = None\n"
        "import corewarding.launch.run.controller"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---- what overlaps and what waits -------------------------------------------------------------------------------------


async def test_actors_sample_ahead_while_the_learner_updates_and_no_further_than_admission_allows(world_of):
    world = world_of(depth=1)
    world.learner.updating.close()
    _, running = world.start()
    await world.until(lambda: ("update begins", 1) in world.events)
    await world.settled()
    asked = [event[1] for event in world.of("sample") if event[2] == "policy"]
    assert len(set(asked)) == len(asked) == 2 * PER_UPDATE  # this update's and the next one's
    assert len(world.buffer.ready()) == PER_UPDATE
    world.learner.updating.open()
    await running
    assert [event[1] for event in world.of("update ends")] == [1, 2, 3]


async def test_a_synchronous_run_samples_only_when_the_new_weights_are_acknowledged(world_of):
    world = world_of(depth=0, staleness={"max": 0, "pipeline_depth": 0})
    await world.run()
    for update in (1, 2):
        ended, acknowledged = world.place("update ends", update), world.place("acknowledged", "policy", update)
        sampled = [place for place, event in enumerate(world.events) if event[0] == "sample" and place > ended]
        assert acknowledged < min(sampled)
        assert not any(event[0] == "sample" for event in world.events[ended:acknowledged])


async def test_the_teacher_is_sent_and_acknowledged_before_the_policy(world_of):
    world = world_of()
    await world.run()
    channels = ["teacher", "policy"]
    assert world.of("send") == [("send", channel, update) for update in range(4) for channel in channels]
    assert world.of("acknowledged") == [("acknowledged", c, update) for update in range(4) for c in channels]


async def test_a_slow_teacher_keeps_the_policy_from_being_acknowledged(world_of):
    world = world_of()
    world.publishers["teacher"].committing.close()
    _, running = world.start()
    await world.until(lambda: world.engines == {"policy": 0})
    await world.settled()
    assert world.of("acknowledged", "sample") == []
    world.publishers["teacher"].committing.open()
    await running


async def test_the_learner_goes_on_before_engines_acknowledge_and_nothing_is_admitted_under_the_new_version(world_of):
    world = world_of(depth=1, train={"updates": 4})
    world.learner.updating.close()
    _, running = world.start()
    await world.until(lambda: ("update begins", 1) in world.events)
    world.publishers["policy"].committing.close()
    world.learner.updating.open()
    await world.until(lambda: ("update ends", 2) in world.events)  # with weights 1 still on their way
    await world.settled()
    assert ("acknowledged", "policy", 1) not in world.events
    assert world.buffer.num_admitted == 2 * PER_UPDATE
    assert ("send", "policy", 2) not in world.events  # a publication waits for the one before
    world.publishers["policy"].committing.open()
    await running
    assert world.buffer.num_admitted == 4 * PER_UPDATE


async def test_weights_are_published_every_so_many_updates_and_the_last_ones_always(world_of):
    world = world_of(
        depth=1, train={"updates": 3}, publish={"every_updates": 2}, teacher={"freeze": True}, staleness={"max": 2}
    )
    await world.run()
    assert world.of("send") == [
        ("send", "teacher", 0),
        ("send", "policy", 0),
        ("send", "policy", 2),
        ("send", "policy", 3),
    ]
    assert world.evaluated[-1] == (False, 3, 3)  # the final evaluation is of the final weights


# ---- evaluations and checkpoints --------------------------------------------------------------------------------------


async def test_an_evaluation_is_of_one_version_and_logged_under_it(world_of):
    world = world_of(eval={"every_updates": 1})
    world.evaluating.close()
    _, running = world.start()
    await world.until(lambda: ("update ends", 2) in world.events)  # training goes on meanwhile
    await world.settled()
    assert ("send", "policy", 2) not in world.events  # but the engines keep their weights
    world.evaluating.open()
    await running
    assert world.evaluated == [(False, 0, 0), (True, 1, 1), (True, 2, 2), (False, 3, 3)]
    assert world.log.evaluations == [("before", 0), ("quick", 1), ("quick", 2), ("after", 3)]


async def test_the_last_update_always_makes_a_checkpoint_and_the_log_holds_its_updates(world_of):
    world = world_of()
    await world.run()
    assert world.of("save", "export", "commit") == [("save", 3), ("export", "policy", 3), ("commit", 3)]
    assert [event[1] for event in world.events[: world.place("save", 3)] if event[0] == "logged"] == [1, 2, 3]


async def test_checkpoints_come_every_so_many_updates_and_once_per_update(world_of):
    world = world_of(train={"updates": 4}, checkpoint={"every_updates": 2})
    await world.run()
    assert world.of("commit") == [("commit", 2), ("commit", 4)]


async def test_a_checkpoint_sees_cursor_and_admission_at_the_same_moment(world_of):
    world = world_of(depth=1, train={"updates": 4}, checkpoint={"every_updates": 1})
    world.learner.updating.close()
    _, running = world.start()
    await world.until(lambda: ("update begins", 1) in world.events)
    await world.settled()
    world.buffer.admitting.close()  # the buffer admits the next questions, and its answer is delayed
    world.learner.updating.open()
    await world.until(lambda: world.buffer.num_admitted == 3 * PER_UPDATE)
    await world.settled()
    assert world.of("commit") == []
    world.buffer.admitting.open()
    await running
    assert [state["updates"] for state in world.folders.states] == [1, 2, 3, 4]
    for state in world.folders.states:
        buffer = state["buffer"]
        assert state["cursor"]["position"] == buffer["num_admitted"]
        assert len(buffer["pending"]) == buffer["num_admitted"] - state["updates"] * PER_UPDATE


async def test_a_resumed_run_goes_on_with_the_next_update(world_of):
    world = world_of(updates=2, train={"updates": 4})
    before = EvalResult(num_questions=1, n=1, greedy=0.25)
    controller = await world.run(before=before)
    assert world.of("send")[:2] == [("send", "teacher", 2), ("send", "policy", 2)]
    assert [event[1] for event in world.of("update ends")] == [3, 4]
    assert world.log.evaluations == [("after", 4)]  # the evaluation before training is the checkpoint's
    assert (controller.before, world.folders.states[-1]["before"]) == (before, before.as_dict())
    assert {event[3] for event in world.of("sample")} == {1}  # the incarnation
    assert world.folders.states[-1]["incarnation"] == 1
    assert controller.statistics.num_trained == 2 * PER_UPDATE


async def test_a_run_that_had_finished_only_evaluates(world_of):
    world = world_of(updates=3)
    await world.run()
    assert world.of("sample", "update begins", "save") == []
    assert world.log.evaluations == [("before", 3), ("after", 3)]


# ---- the log ----------------------------------------------------------------------------------------------------------


async def test_updates_are_logged_in_order_behind_the_training(world_of):
    world = world_of()
    world.buffer.reporting.close()  # of update 1
    _, running = world.start()
    await world.until(lambda: ("update ends", 3) in world.events)
    await world.settled()
    assert world.of("logged") == []
    world.buffer.reporting.open()
    await running
    assert world.of("logged") == [("logged", 1), ("logged", 2), ("logged", 3)]
    scalars = world.log.metrics[2].scalars
    assert {"time/update_s", "time/learner_wait_s", "sync/policy_s", "throughput/completions_per_s"} <= scalars.keys()
    assert scalars["rollout_teacher/idle_frac"] == 0.25
    lanes = {span.lane for span in world.log.spans}
    assert lanes == {"learner", "policy-0", "weights to policy", "weights to teacher"}
    assert sum(span.name == "update 2" for span in world.log.spans) == 1


# ---- what ends a run --------------------------------------------------------------------------------------------------


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
    with pytest.raises(StalledError, match=r"weights 0\.0, 1 batches taken"):
        await world.run()


async def test_updates_are_progress_for_the_watchdog(world_of):
    world = world_of(depth=6, run={"watchdog_s": 0.2}, train={"updates": 6})  # all questions are ready from the start
    world.learner.updating.close()
    _, running = world.start()
    for update in range(1, 7):
        await world.until(lambda update=update: ("update begins", update) in world.events)
        await asyncio.sleep(0.06)
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
    world.workers["teacher"].error = RolloutGroupError("teacher-0 is lost")
    with pytest.raises(RolloutGroupError, match="teacher-0 is lost"):
        await world.run()
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
