"""The whole program on real engines: `corewarding train` on the arithmetic world, policy and teacher on vLLM, on SGLang, and mixed.

CW_FLEETS names the fleets (default: mixed, which has both engines in it).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


def train(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "launch.cli",
        "train",
        "configs/cpu.yaml",
        "--run.root",
        str(tmp_path),
        "--run.name",
        "run",
    ]
    return subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, timeout=580)


@pytest.fixture(autouse=True)
def both_installed():
    absent = [python for python in (VLLM_PYTHON, SGLANG_PYTHON) if not Path(python).exists()]
    if absent and (os.environ.get("CW_ENGINES") or os.environ.get("CW_FLEETS")):
        pytest.fail(f"make engines: there is no {absent}")
    if absent:
        pytest.skip(f"make engines: there is no {absent}")


@pytest.mark.parametrize("fleet", os.environ.get("CW_FLEETS", "mixed").split(","))
def test_twenty_updates_raise_the_accuracy(tmp_path, fleet):
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


def test_an_engine_whose_logprobs_are_not_the_learners_is_refused_with_the_reason(tmp_path):
    raw = ["--engine.arguments", "logprobs_mode", "raw_logprobs", "--rollout.temperature", "0.7"]
    done = train(tmp_path, *FLEETS["vllm"], *raw)
    assert done.returncode == 2
    assert "They are those of temperature 1 instead of 0.7" in done.stderr


def test_an_argument_vllm_does_not_have_is_refused_in_its_own_words(tmp_path):
    done = train(tmp_path, *FLEETS["vllm"], "--engine.arguments", "no_such_argument", "3")
    assert done.returncode != 0
    assert "no_such_argument" in done.stdout + done.stderr
