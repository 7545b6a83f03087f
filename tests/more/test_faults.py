"""Faults that meet a whole run, judged from outside: exit code, last words, what is left, and whether the same command goes on."""

import os
import signal
from pathlib import Path

import pytest

from tests.more.runs import started

LONG = {"train__updates": 80, "data__num_train": 256}


def test_sigterm_saves_the_last_update_and_the_same_command_goes_on(tmp_path: Path) -> None:
    with started(tmp_path, train__updates=30) as run:
        run.until(lambda: len(run.updates()) >= 2)
        run.driver.terminate()
        run.ends(143, "SIGTERM after update", "goes on", within_s=60)
        done = run.updates()
        assert done == list(range(1, len(done) + 1))
    with started(tmp_path, train__updates=30) as run:
        run.ends(0)
        assert run.updates() == list(range(1, 31))


def test_ctrl_c_while_it_starts_saves_nothing_and_the_same_command_starts_again(tmp_path: Path) -> None:
    with started(tmp_path) as run:
        run.until(lambda: run.pids("ray::"))
        os.kill(run.driver.pid, signal.SIGINT)
        run.ends(0, "Ctrl-C before the first update", "the same command starts again", within_s=60)
    with started(tmp_path) as run:
        run.ends(0)
        assert run.updates() == [1, 2]


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    with started(tmp_path, **LONG) as run:
        run.until(run.updates)
        run.send(signal.SIGSTOP, "ray::LearnerActor")  # the update under way never ends
        os.kill(run.driver.pid, signal.SIGINT)
        run.until(lambda: "Ctrl-C again ends at once" in run.text())
        os.kill(run.driver.pid, signal.SIGINT)
        run.ends(130, within_s=10)


@pytest.mark.parametrize(
    ("title", "number", "words"),
    [
        ("ray::BufferActor", signal.SIGSTOP, ["buffer: does not answer", "run.watchdog_s"]),
        ("ray::BufferActor", signal.SIGKILL, ["the replay buffer died", "corewarding resume"]),
        ("ray::LearnerActor", signal.SIGSTOP, ["learner: weights 0.", "run.watchdog_s"]),
        ("ray::LearnerActor", signal.SIGKILL, ["a learner rank died during", "corewarding resume"]),
    ],
)
def test_a_part_that_cannot_be_replaced_is_named(tmp_path: Path, title: str, number: int, words: list[str]) -> None:
    with started(tmp_path, **LONG, checkpoint__every_updates=1) as run:
        run.until(lambda: run.updates()[1:])
        run.send(number, title)
        run.ends(1, *words, within_s=75)


def test_an_actor_that_is_stopped_during_an_evaluation_is_replaced(tmp_path: Path) -> None:
    with started(tmp_path, rollout__silent_s=5, data__num_heldout=128, eval__num_questions=128) as run:
        run.until(lambda: "self-test:" in run.text())
        run.send(signal.SIGSTOP, "ray::PlacedRolloutActor")  # the policy's and the teacher's
        run.ends(0)
        assert run.updates() == [1, 2]
