"""The controller over fakes, without Ray: what may overlap, what must wait, evaluations, checkpoints and the log."""

import subprocess
import sys

from corewarding.dataflow.errors import RunError
from corewarding.evals.heldout import EvalResult
from tests.unit.launch.run.fakes import PER_UPDATE


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


async def test_the_teacher_s_engines_get_the_policy_s_last_weights_unless_they_still_sample(world_of):
    world = world_of(train={"updates": 2})
    await world.run()
    assert world.of("lend") == [("lend", "teacher", 2)]
    assert [event for event in world.of("acknowledged") if event[1] == "teacher"] == [
        ("acknowledged", "teacher", update) for update in range(3)
    ]
    world = world_of(depth=1, train={"updates": 4}, run={"max_wall_s": 1e-9})
    world.learner.updating.close()
    _, running = world.start()
    await world.until(lambda: ("update begins", 1) in world.events)
    world.workers["teacher"].sampling.close()
    world.learner.updating.open()
    await world.until(lambda: ("logged", 1) in world.events)
    await running
    assert world.of("lend") == []
    assert world.evaluated[-1] == (False, 1, 1)


async def test_a_run_whose_teacher_s_engines_cannot_take_the_policy_s_weights_evaluates_without_them(world_of, caplog):
    world = world_of(train={"updates": 2})
    world.publishers["teacher"].lent_error = RunError("channel teacher: no receiver to blame")
    await world.run()
    assert world.of("lend") == [("lend", "teacher", 2)]
    assert world.evaluated[-1] == (False, 2, 2)
    assert world.publishers["teacher"].weights == "teacher"  # so whoever evaluates leaves its engines out
    assert "no receiver to blame" in caplog.text


async def test_unlike_engines_of_the_teacher_are_left_alone(world_of):
    world = world_of(train={"updates": 2}, teacher_engine={"slots": 7})
    await world.run()
    assert world.of("lend") == []


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


async def test_engines_sample_for_the_first_update_while_they_are_evaluated(world_of):
    """An evaluation ends with a few long completions, which leave most of an engine idle."""
    world = world_of(train={"updates": 1})
    world.evaluating_first.close()
    controller, running = world.start()
    await world.until(lambda: len(world.of("sample")) >= PER_UPDATE)
    await world.settled()
    assert world.of("update begins") == []  # so that no checkpoint and no journal has an update without this evaluation
    assert controller.before is None
    world.evaluating_first.open()
    await running
    assert world.evaluated == [(False, 0, 0), (False, 1, 1)]
    assert controller.before is not None


async def test_the_last_update_always_makes_a_checkpoint_and_the_log_holds_its_updates(world_of):
    world = world_of()
    await world.run()
    assert world.of("stage", "write", "export", "commit") == [
        *(("stage", 3), ("write", "writing-3"), ("export", "policy", "writing-3"), ("commit", 3)),
    ]
    assert [event[1] for event in world.events[: world.place("stage", 3)] if event[0] == "logged"] == [1, 2, 3]


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
    assert world.of("sample", "update begins", "stage") == []
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
