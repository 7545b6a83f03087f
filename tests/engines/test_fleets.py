"""The whole program on real engines: `corewarding train` on the arithmetic world, policy and teacher on vLLM, on SGLang, and mixed.

CW_FLEETS names the fleets (default: mixed, which has both engines in it).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engines.world import ROOT, SGLANG_PYTHON

VLLM_PYTHON = os.environ.get("CW_VLLM_PYTHON", str(ROOT / ".venv-vllm" / "bin" / "python"))
FLEETS = {
    "vllm": ["--engine.kind", "vllm", "--engine.python", VLLM_PYTHON],
    "sglang": ["--engine.kind", "sglang", "--engine.python", SGLANG_PYTHON],
    "mixed": [
        "--engine.kind",
        "vllm",
        "--engine.python",
        VLLM_PYTHON,
        "--teacher-engine",
        "kind",
        "sglang",
        "python",
        SGLANG_PYTHON,
    ],
}


def command(tmp_path: Path, *words: str) -> list[str]:
    where = ["--run.root", str(tmp_path), "--run.name", "run"]
    return [sys.executable, "-m", "corewarding.launch.cli", "train", "configs/cpu.yaml", *where, *words]


def train(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(tmp_path, *words), cwd=ROOT, capture_output=True, text=True, timeout=580)


def descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return False


@pytest.fixture(autouse=True)
def both_installed() -> None:
    absent = [python for python in (VLLM_PYTHON, SGLANG_PYTHON) if not Path(python).exists()]
    if absent and (os.environ.get("CW_ENGINES") or os.environ.get("CW_FLEETS")):
        pytest.fail(f"make engines: there is no {absent}")
    if absent:
        pytest.skip(f"make engines: there is no {absent}")


@pytest.mark.parametrize("fleet", os.environ.get("CW_FLEETS", "mixed").split(","))
def test_twenty_updates_raise_the_accuracy(tmp_path: Path, fleet: str) -> None:
    done = train(tmp_path, *FLEETS[fleet], "--train.updates", "20", "--eval.every-updates", "0")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "self-test: log-probabilities of engines and learner agree" in done.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["updates"] == 20
    assert summary["after"]["mean@8"] - summary["before"]["mean@8"] >= 0.2
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if row["kind"] == "update":
            assert row["staleness/max"] <= 4
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False).stdout
    assert not left, f"processes outlived the run: {left}"


def test_a_server_that_is_killed_is_replaced_and_the_run_goes_on(tmp_path: Path) -> None:
    words = [
        "--rule",
        "majority_vote",
        "--train.updates",
        "6",
        "--eval.every-updates",
        "0",
        "--eval.num-questions",
        "32",
    ]
    running = subprocess.Popen(
        command(tmp_path, *FLEETS["sglang"], *words), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and '"kind": "update"' in metrics.read_text()):
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.2)
    found = subprocess.run(
        ["pgrep", "-f", "actors/sglang/launch.py"], capture_output=True, text=True, check=True
    ).stdout
    mine = [int(pid) for pid in found.split() if descends(int(pid), running.pid)]
    os.kill(mine[0], signal.SIGKILL)
    said, _ = running.communicate(timeout=400)
    assert running.returncode == 0, said[-2000:]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["updates"] == 6


def test_an_engine_whose_logprobs_are_not_the_learners_is_refused_with_the_reason(tmp_path: Path) -> None:
    raw = ["--engine.arguments", "logprobs_mode", "raw_logprobs", "--rollout.temperature", "0.7"]
    done = train(tmp_path, *FLEETS["vllm"], *raw)
    assert done.returncode == 2
    assert "They are those of temperature 1 instead of 0.7" in done.stderr


def test_an_argument_vllm_does_not_have_is_refused_in_its_own_words(tmp_path: Path) -> None:
    done = train(tmp_path, *FLEETS["vllm"], "--engine.arguments", "no_such_argument", "3")
    assert done.returncode != 0
    assert "no_such_argument" in done.stdout + done.stderr


def test_an_engine_of_two_workers_that_ray_placed_takes_every_version(tmp_path: Path) -> None:
    """In a placement group vLLM would choose Ray for its workers, and refuse: a whole engine is one bundle."""
    words = ["--engine.tensor-parallel", "2", "--rule", "majority_vote", "--staleness.max", "0", "--train.updates", "3"]
    small = ["--train.questions-per-update", "8", "--eval.every-updates", "0", "--eval.num-questions", "16"]
    done = train(tmp_path, *FLEETS["vllm"], *words, *small)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "self-test: log-probabilities of engines and learner agree" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    updates = [row for row in rows if row["kind"] == "update"]
    assert [row["staleness/max"] for row in updates] == [0, 0, 0]  # each update was sampled under the one before


def test_shared_memory_too_small_for_the_staged_weights_is_named_before_the_start(tmp_path: Path) -> None:
    """In a mount namespace of its own, where /dev/shm is 1 MiB."""
    words = command(tmp_path, *FLEETS["vllm"], "--engine.tensor-parallel", "2")
    script = 'mount -t tmpfs -o size=1m none /dev/shm && exec "$@"'
    began = time.monotonic()
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"mount namespaces cannot be made here: {done.stderr}")
    assert done.returncode == 2
    assert "2 engines" in done.stderr
    assert "and 1 MiB are free" in done.stderr
    assert time.monotonic() - began < 30
    assert not list(tmp_path.iterdir())
