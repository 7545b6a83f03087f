"""Faults that meet a whole run, judged from outside: exit code, last words, what is left, and whether the same command goes on."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.more.cluster import environment, small

MARK = "CW_TEST_RUN"
"""Environment variable by which all processes of a run are found, however they came to be."""
PATIENCE_S = 240


class Run:
    """`corewarding train cpu` in the background, made small."""

    def __init__(self, root: Path, **keys: object) -> None:
        """keys: of the configuration, with `__` for the dot."""
        words = small(**{"run__watchdog_s": 15, "run__name": "f"} | keys)
        self.folder, self.log, self.mark = root / "runs" / "f", root / "log", uuid.uuid4().hex
        with self.log.open("ab") as out:
            self.driver = subprocess.Popen(
                [
                    *(sys.executable, "-m", "corewarding.launch.cli", "train", "cpu", "--run.root", str(root / "runs")),
                    *words,
                ],
                env=environment() | {MARK: self.mark},
                cwd=root,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def pids(self, title: str = "") -> list[int]:
        """Processes of this run whose command line has `title`, without the driver."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if f"{MARK}={self.mark}".encode() not in (folder / "environ").read_bytes():
                    continue
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (OSError, ValueError):
                continue
            if command and title in command and int(folder.name) != self.driver.pid:
                found.append(int(folder.name))
        return found

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def updates(self) -> list[int]:
        """The updates in metrics.jsonl, in order."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        return [row["update"] for row in rows if row["kind"] == "update"]

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.driver.poll() is None, self.text()[-3000:]
            assert time.monotonic() < deadline, self.text()[-3000:]
            time.sleep(0.05)

    def send(self, number: int, title: str) -> None:
        """Signals the run's processes of this title."""
        self.until(lambda: self.pids(title))
        for pid in self.pids(title):
            os.kill(pid, number)

    def ends(self, code: int, *words: str, within_s: float = PATIENCE_S) -> None:
        """The driver ends with this exit code, says these words and no traceback, and nothing of the run is left."""
        assert self.driver.wait(within_s) == code, self.text()[-3000:]
        for word in words:
            assert word in self.text(), self.text()[-3000:]
        assert "Traceback" not in self.text(), self.text()[-5000:]
        deadline = time.monotonic() + 30
        while self.pids():
            assert time.monotonic() < deadline, [Path(f"/proc/{pid}/cmdline").read_text() for pid in self.pids()]
            time.sleep(0.2)


@contextmanager
def started(root: Path, **keys: object) -> Iterator[Run]:
    run = Run(root, **keys)
    try:
        yield run
    finally:
        for pid in [*run.pids(), *([run.driver.pid] if run.driver.poll() is None else [])]:
            os.kill(pid, signal.SIGKILL)


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
