"""Synchronous runs with a deterministic engine, and with schedules: the same bits when repeated, with the learner's state in the
host's memory, when replayed, and when killed and resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file

from corewarding.launch.cli import main
from corewarding.learner.schedule import learning_rate
from tests.integration.test_training import rows_of, small

pytestmark = pytest.mark.timeout(400)
ROOT = Path(__file__).resolve().parents[2]
UPDATES = 5
SYNCHRONOUS = {
    "staleness": {"max": 0, "pipeline_depth": 0},
    "engine": {"slots": 32, "deterministic": True},
    "train": {"questions_per_update": 4, "updates": UPDATES, "lr": 1e-3},
    "eval": {"every_updates": 0, "num_questions": 4, "samples": 1},
    "checkpoint": {"every_updates": 1, "keep": UPDATES},
    "schedules": {
        "train.lr": {3: 1e-2},
        "loss.eps_high": {1: 0.3},
        "correction.cap": {4: 1.5},
        "staleness.max": {2: 1, 4: 0},
        "kl.coef": {2: 0.05, 4: 0.01},
        "teacher.alpha_start": {3: 0.5},
        "train.weight_decay": {2: 0.1},
        "train.grad_clip": {1: 0.1},
    },
    "kl": {"coef": 0.0, "reference": "initial"},
}


def start(root, offload=()):
    """The run as a user starts it, in a process group of its own."""
    config = small(root, **SYNCHRONOUS, learner={"offload": list(offload)})
    path = Path(root) / "config.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return subprocess.Popen(
        [sys.executable, "-m", "corewarding.launch.cli", "train", str(path), "--run.resume", "auto"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def weights_of(root):
    return load_file(Path(root) / "small" / "checkpoints" / f"step-{UPDATES:06d}" / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    root = tmp_path_factory.mktemp("straight")
    assert start(root).wait() == 0
    return root


def test_a_replay_makes_the_updates_with_their_scheduled_values(straight, capsys):
    folder = Path(straight) / "small"
    assert [row["kl/mean"] > 0 for row in rows_of(folder)] == [False, False, True, True, True]
    assert main(["replay", str(folder)]) == 0
    assert f"the weights of {UPDATES} updates are equal, bit for bit" in capsys.readouterr().out
    assert main(["replay", str(folder), "--what-if", "kl.coef=0.1"]) == 2
    assert "kl.coef: the run changes this key by schedules" in capsys.readouterr().err
    assert main(["replay", str(folder), "--what-if", "schedules={kl.coef: {0: 0.0}, staleness.max: {4: 0}}"]) == 2
    assert "--what-if staleness.max: it decided what was sampled" in capsys.readouterr().err
    assert main(["replay", str(folder), "--until", "3", "--what-if", "schedules={staleness.max: {2: 1, 4: 0}}"]) == 0
    assert "weights" in capsys.readouterr().out


@pytest.mark.parametrize(("kill_after", "offload"), [(2, ()), (None, ("optimizer", "teacher", "reference"))])
def test_a_synchronous_run_ends_with_the_same_weights(straight, tmp_path, kill_after, offload):
    if kill_after is not None:
        run = start(tmp_path)
        log = tmp_path / "small" / "metrics.jsonl"
        while not (log.exists() and log.read_text().count('"kind": "update"') >= kill_after):
            assert run.poll() is None
            time.sleep(0.02)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        assert not (tmp_path / "small" / "checkpoints" / f"step-{UPDATES:06d}").exists()
    assert start(tmp_path, offload).wait() == 0
    train = small(tmp_path, **SYNCHRONOUS).train
    rates = [train.model_copy(update={"lr": 1e-2 if update > 3 else 1e-3}) for update in range(1, UPDATES + 1)]
    expected = [learning_rate(update, one) for update, one in enumerate(rates, start=1)]
    assert [row["train/lr"] for row in rows_of(tmp_path / "small")] == expected
    expected, got = weights_of(straight), weights_of(tmp_path)
    assert expected.keys() == got.keys()
    for name in expected:
        assert expected[name].dtype == "float32"
        assert (expected[name] == got[name]).all(), name
    for one, other in zip(rows_of(straight / "small"), rows_of(tmp_path / "small"), strict=True):
        for key in (
            "update",
            "loss/total",
            "kl/mean",
            "teacher/alpha",
            "train/grad_norm",
            "reward/mean",
            "mismatch/k3",
        ):
            assert one[key] == other[key], key
