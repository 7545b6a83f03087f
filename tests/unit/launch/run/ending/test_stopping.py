"""A request to end a run: what it gives up, what it saves, and what the next start finds."""

import asyncio
import signal
import subprocess
import sys
import textwrap

import pytest

from corewarding.dataflow.errors import SignalStop
from corewarding.launch.run.controller import Controller
from corewarding.launch.run.ending.stopping import Signals, StoppedError, StopRequest
from corewarding.launch.run.ending.supervision import StalledError


async def test_a_request_while_the_learner_waits_saves_the_last_update_and_takes_no_other(world_of):
    world, stop = world_of(train={"updates": 9}), StopRequest()
    controller, running = world.start(stop=stop)
    await world.until(lambda: ("update begins", 2) in world.events)
    world.workers["teacher"].sampling.close()  # nothing becomes ready any more
    await world.settled()
    done = controller.version.updates
    stop.ask("Ctrl-C")
    await running
    assert controller.stopped_early == f"Ctrl-C after update {done}"
    assert world.of("commit") == [("commit", done)]
    assert world.of("halt") == [("halt", done)]
    assert world.of("logged")[-1] == ("logged", done)
    state = world.folders.states[-1]
    consumed = {event[1] for event in world.of("sample")} - set(world.buffer.waiting)
    assert len(consumed) == 2 * done  # each question is either trained or pending
    assert len(state["buffer"]["pending"]) == len(world.buffer.waiting)
    assert any("run.grace_s" in text for text in world.log.said)


async def test_an_update_under_way_is_finished_logged_and_saved(world_of):
    world, stop = world_of(train={"updates": 9}), StopRequest()
    world.learner.updating.close()
    controller, running = world.start(stop=stop)
    await world.until(lambda: ("update begins", 1) in world.events)
    stop.ask("SIGTERM")
    await world.settled()
    assert world.of("commit") == []
    world.learner.updating.open()
    await running
    assert controller.stopped_early == "SIGTERM after update 1"
    assert world.of("commit") == [("commit", 1)]
    assert world.of("logged") == [("logged", 1)]
    assert world.of("update begins") == [("update begins", 1)]


async def test_a_batch_that_the_buffer_gave_already_is_trained(world_of):
    """Its questions have left the buffer; given up, they would be lost."""
    world, stop = world_of(train={"updates": 9}), StopRequest()
    taking = world.buffer.take

    async def take(update, statistics):
        batch = await taking(update, statistics)
        stop.ask("Ctrl-C")
        await asyncio.sleep(0.02)  # the answer is on its way
        return batch

    world.buffer.take = take
    controller, running = world.start(stop=stop)
    await running
    assert controller.version.updates == 1
    assert world.of("commit") == [("commit", 1)]


@pytest.mark.parametrize("phase", ["publishing", "evaluating"])
async def test_before_the_first_update_nothing_is_saved(world_of, phase):
    world, stop = world_of(), StopRequest()
    if phase == "publishing":
        world.publishers["policy"].committing.close()
    else:
        world.parts.evaluate = lambda quick: asyncio.Event().wait()
    controller, running = world.start(stop=stop)
    await world.settled()
    stop.ask("Ctrl-C")
    await running
    assert controller.stopped_early == "Ctrl-C after update 0"
    assert world.of("commit", "update begins") == []


async def test_a_request_during_the_last_evaluation_keeps_the_last_checkpoint(world_of):
    world, stop = world_of(updates=2), StopRequest()

    async def evaluate(quick):
        if world.of("commit"):
            stop.ask("Ctrl-C")
            await asyncio.Event().wait()

    world.parts.evaluate = evaluate
    controller, running = world.start(stop=stop)
    await running
    assert controller.stopped_early == "Ctrl-C after update 3"
    assert world.of("commit") == [("commit", 3)]


async def test_a_quick_evaluation_under_way_is_given_up(world_of):
    world, stop = world_of(train={"updates": 9}, eval={"every_updates": 1}), StopRequest()
    world.evaluating.close()
    controller, running = world.start(stop=stop)
    await world.until(lambda: ("update ends", 2) in world.events)
    await world.settled()
    stop.ask("Ctrl-C")
    await running
    assert controller.stopped_early == "Ctrl-C after update 2"
    assert world.of("logged") == [("logged", 1), ("logged", 2)]
    assert world.of("commit") == [("commit", 2)]


async def test_what_does_not_end_in_its_grace_is_given_up(world_of):
    world, stop = world_of(), StopRequest()
    world.learner.updating.close()
    stop.listen()
    running = asyncio.create_task(stop.within(0.05, Controller(world.parts, stop=stop).run()))
    await world.until(lambda: ("update begins", 1) in world.events)
    stop.ask("Ctrl-C")
    with pytest.raises(StoppedError, match=r"did not end within run\.grace_s = 0\.05 s"):
        await running
    assert world.of("commit") == []
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert [task.get_name() for task in others if not task.get_name().startswith("Task-")] == []


async def test_a_resumed_run_that_made_no_update_saves_nothing_new(world_of):
    world, stop = world_of(updates=1), StopRequest()
    world.workers["policy"].sampling.close()
    controller, running = world.start(stop=stop)
    await world.settled()
    stop.ask("SIGTERM")
    await running
    assert world.of("commit") == []
    assert controller.stopped_early == "SIGTERM after update 1"


async def test_a_buffer_that_does_not_answer_is_named(world_of):
    world = world_of(run={"watchdog_s": 0.1})
    world.buffer.answering.close()
    world.workers["policy"].sampling.close()
    with pytest.raises(StalledError, match="buffer: does not answer"):
        await world.run()


async def test_the_watchdog_waits_for_an_actor_that_starts_again(world_of):
    world = world_of(run={"watchdog_s": 0.1})
    world.workers["policy"].sampling.close()
    world.workers["policy"].starting = True
    _, running = world.start()
    await asyncio.sleep(0.4)
    assert not running.done()
    world.workers["policy"].starting = False
    with pytest.raises(StalledError):
        await running


async def test_an_evaluation_that_hangs_is_noticed(world_of):
    world = world_of(run={"watchdog_s": 0.1})
    world.parts.evaluate = lambda quick: asyncio.Event().wait()
    with pytest.raises(StalledError, match="no answered task"):
        await world.run()


@pytest.mark.parametrize(("number", "name", "code"), [(signal.SIGINT, "Ctrl-C", 0), (signal.SIGTERM, "SIGTERM", 143)])
def test_a_signal_before_the_run_says_that_nothing_was_saved(number, name, code):
    with (
        Signals(StopRequest()).caught(),
        pytest.raises(SignalStop, match=f"{name} before .*; nothing was saved") as stopped,
    ):
        signal.raise_signal(number)
    assert stopped.value.exit_code == code


def test_the_handlers_of_before_come_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Signals(StopRequest()).caught():
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) != before
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_ctrl_c_ends_a_process_that_hangs():
    program = """
        import asyncio, os, signal, threading, time
        from corewarding.launch.run.ending.stopping import Signals, StopRequest

        stop = StopRequest()
        signals = Signals(stop)

        async def run():
            stop.listen()
            os.kill(os.getpid(), signal.SIGINT)
            await stop.heard()
            print("heard", flush=True)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(30)

        with signals.caught(), signals.running():
            try:
                asyncio.run(run())
            except KeyboardInterrupt:
                time.sleep(30)  # an end that hangs
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stdout == "heard\n"
    assert done.returncode == 130
    assert done.stderr == "corewarding: ended at once\n"
