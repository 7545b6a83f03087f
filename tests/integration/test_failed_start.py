"""A run that cannot start ends soon with one message, and starts when the cause is mended."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 20.0
SMALL = [
    "rule=majority_vote", "data.num_train=8", "data.num_heldout=4", "rollout.group_size=2", "rollout.max_new_tokens=8",
    "train.questions_per_update=2", "train.updates=1", "eval.num_questions=2", "eval.quick_questions=2", "eval.samples=1",
    "rollout.policy_actors=2", "rollout.cpus_per_actor=0.25", "learner.cpus_per_rank=0.25",
]  # fmt: skip
PLUGIN = """\
import os, time
from pathlib import Path
import corewarding as cw
from corewarding.actors.embedded.engine import EmbeddedEngine

HERE = Path(__file__).parent

@cw.engine_kind("frail")
def frail(context):
    if (HERE / "mended").exists():
        return EmbeddedEngine(context)
    try:
        (HERE / "first").touch(exist_ok=False)
    except FileExistsError:
        time.sleep(1000)  # the other actor hangs
    (HERE / "failed_at").write_text(str(time.time()))
    os._exit(3)
"""


@pytest.fixture
def rays() -> Iterator[Path]:
    """A folder for Ray's files, whose path is short: sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="rays-") as folder:
        yield Path(folder)


def train(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "corewarding.launch.cli", "train", "cpu", *SMALL, *words, "run.name=a"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=env | variables, capture_output=True, text=True, check=False)


def assert_one_message(done: subprocess.CompletedProcess[str], code: int, *says: str) -> None:
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
    (start, *_) = messages = [line for line in done.stderr.splitlines() if line.startswith("corewarding: ")]
    assert len(messages) == 1
    for part in says:
        assert part in done.stderr[done.stderr.index(start) :]
    assert "Traceback" not in done.stderr + done.stdout


def test_an_engine_that_dies_at_start_ends_the_run_while_another_still_hangs(tmp_path: Path) -> None:
    (tmp_path / "frail.py").write_text(PLUGIN)
    words = ["plugins=[frail.py]", "engine.kind=frail"]
    done = train(tmp_path, *words)
    ended = time.time()
    assert_one_message(done, 1, "1 of 2 policy actors did not start: policy-", "the same command starts again")
    assert ended - float((tmp_path / "failed_at").read_text()) < WITHIN_S
    assert f"corewarding: {(tmp_path / 'runs' / 'a' / 'failure.txt').read_text()}" in done.stderr
    (tmp_path / "mended").touch()
    done = train(tmp_path, *words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (tmp_path / "runs" / "a" / "failure.txt").exists()
    assert json.loads((tmp_path / "runs" / "a" / "summary.json").read_text())["updates"] == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_while_ray_starts_ends_it_in_order(tmp_path: Path, rays: Path, number: int, code: int) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "corewarding.launch.cli", "train", "cpu", *SMALL, "run.name=a"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=env | {"PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(rays)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as run:
        while not list(rays.glob("*/session_*/logs/gcs_server*")):
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(number)
        said, _ = run.communicate()
    assert run.returncode == code, said
    assert "before the first update; nothing was saved" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert list(rays.glob("*/session_*")) == []


def test_a_rank_that_fails_at_start_names_the_cause_and_the_corrected_command_starts(tmp_path: Path) -> None:
    began = time.time()
    done = train(tmp_path, "learner.ranks=2", GLOO_SOCKET_IFNAME="nowhere0")  # the ranks cannot meet
    assert_one_message(done, 1, "a learner rank did not start: ", "nowhere0", "the same command starts again")
    assert time.time() - began < 3 * WITHIN_S  # start of Ray included
    done = train(tmp_path, "learner.start_timeout_s=0.01")
    assert_one_message(done, 1, "1 ranks did not load the model within 0.01 s (learner.start_timeout_s)")
    done = train(tmp_path, "learner.ranks=2", "train.lr=1.0e-4")  # another learning rate, too: nothing was trained
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "runs" / "a" / "summary.json").read_text())["updates"] == 1
