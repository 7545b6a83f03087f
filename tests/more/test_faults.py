"""Faults that meet a whole run, judged from outside: exit code, last words, what is left, and whether the same command goes on."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from corewarding.learner.replay.journal.history import History
from tests.more.runs import Run, started

LONG = {"train__updates": 80, "data__num_train": 256}
ONCE = {"train__updates": 20, "train__questions_per_update": 4, "data__num_train": 80, "run__sample_questions": 4}


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
        ("ray::LearnerActor", signal.SIGSTOP, ["learner: weights 0.", "run.watchdog_s"]),
    ],
)
def test_a_part_that_cannot_be_replaced_is_named(tmp_path: Path, title: str, number: int, words: list[str]) -> None:
    with started(tmp_path, **LONG, checkpoint__every_updates=1) as run:
        run.until(lambda: run.updates()[1:])
        run.send(number, title)
        run.ends(1, *words, within_s=75)


def test_a_buffer_that_is_killed_comes_back_and_nothing_is_lost_or_trained_twice(tmp_path: Path) -> None:
    with started(tmp_path, **ONCE) as run:
        for done in (1, 4, 5):
            run.reaches(done)
            run.send(signal.SIGKILL, "ray::BufferActor")
            run.reaches(len(run.updates()) + 2)
        run.ends(0, "the replay buffer's process ended; process", "goes on from the journal")
        assert run.updates() == list(range(1, ONCE["train__updates"] + 1))
    assert _trained(run) == dict.fromkeys(_trained(run), 8)
    assert len(_trained(run)) == ONCE["data__num_train"]


def test_a_learner_that_is_killed_comes_back_with_the_same_weights(tmp_path: Path) -> None:
    """Also when the journal goes no further back than the only checkpoint that is kept, and the buffer dies after it."""
    kept = {"checkpoint__every_updates": 4, "checkpoint__keep": 1, "journal__retain": "since_oldest_checkpoint"}
    with started(tmp_path, **ONCE, **kept, learner__ranks=2) as run:
        for done in (2, 6):
            run.reaches(done)
            os.kill(run.pids("ray::LearnerActor")[-1], signal.SIGKILL)
            run.reaches(len(run.updates()) + 2)
        run.send(signal.SIGKILL, "ray::BufferActor")
        run.ends(0, "the learner is started again (2 of 3)", "are made again, bit for bit", "goes on from the journal")
        assert run.updates() == list(range(1, ONCE["train__updates"] + 1))
    assert History.of(run.folder / "journal").first > ONCE["train__updates"] - 4
    assert _trained(run) == dict.fromkeys(_trained(run), 8)
    assert len(_trained(run)) == ONCE["data__num_train"]


NOISY = """\
from pathlib import Path
import torch

if (Path(__file__).parent / "noisy").exists():
    step = torch.optim.AdamW.step

    def noisy(self, *args, **options):
        done = step(self, *args, **options)
        with torch.no_grad():
            self.param_groups[0]["params"][0].mul_(1.0001)
        return done

    torch.optim.AdamW.step = noisy
"""


def test_a_learner_that_comes_back_with_other_weights_drops_what_the_lost_ones_sampled(tmp_path: Path) -> None:
    """As on a GPU that does not repeat itself: from the file `noisy` on, every step of the optimizer rounds in another way."""
    (tmp_path / "rounding.py").write_text(NOISY)
    few = ONCE | {"train__updates": 10, "data__num_train": 40}
    with started(tmp_path, **few, plugins=str(tmp_path / "rounding.py")) as run:
        run.reaches(3)
        (tmp_path / "noisy").touch()
        run.send(signal.SIGKILL, "ray::LearnerActor")
        run.ends(0, "the actors are started again (1 of 3)", "the weights differ, so what they had sampled is dropped")
        assert run.updates() == list(range(1, few["train__updates"] + 1))
    assert len(_trained(run)) == few["data__num_train"]


def _trained(run: Run) -> Counter[str]:
    """How many completions of each asked question made updates: four of the policy and four of the teacher."""
    return Counter(
        row["id"].rsplit("/", 3)[0]
        for path in sorted((run.folder / "samples").glob("update-*.jsonl"))
        for row in map(json.loads, path.read_text().splitlines())
    )


@pytest.mark.parametrize(
    ("key", "title", "words"),
    [
        ("journal__max_restarts", "ray::BufferActor", "the replay buffer died"),
        ("learner__max_restarts", "ray::LearnerActor", "a learner rank died during"),
    ],
)
def test_without_restarts_a_death_ends_the_run_by_name(tmp_path: Path, key: str, title: str, words: str) -> None:
    with started(tmp_path, **LONG, **{key: 0}, checkpoint__every_updates=1) as run:
        run.reaches(2)
        run.send(signal.SIGKILL, title)
        run.ends(1, words, "corewarding resume", within_s=75)


def test_an_actor_that_is_stopped_during_an_evaluation_is_replaced(tmp_path: Path) -> None:
    with started(tmp_path, rollout__silent_s=5, data__num_heldout=128, eval__num_questions=128) as run:
        run.until(lambda: "self-test:" in run.text())
        run.send(signal.SIGSTOP, "ray::PlacedRolloutActor")  # the policy's and the teacher's
        run.ends(0)
        assert run.updates() == [1, 2]
