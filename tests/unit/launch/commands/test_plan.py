"""The command: tables, JSON, exit codes, and a model that cannot be reached."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corewarding.dataflow.errors import UserError
from corewarding.launch.cli import main
from corewarding.launch.commands.planning.plan import GpuName
from corewarding.launch.commands.planning.plan import run as plan
from corewarding.launch.plan.gpus import GPUS


def test_the_shipped_model_on_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "820,608 parameters" in printed
    assert "Memory of a learner rank (1 in all, on the CPU), in MB" in printed


def test_what_does_not_fit_is_said_with_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "qwen3_32b",
        "--gpu",
        "H100",
        "--params",
        "32B",
        "--learner.ranks",
        "8",
        "--train.questions-per-update",
        "4",
    ]
    assert plan(words) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "learner rank does not fit: it needs" in printed
    assert "the nearest change that makes it fit: learner.offload=[optimizer]" in printed
    assert plan([*words, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["num_parameters"] == 32_762_123_264
    assert found["forecast"]["staleness_mean"] <= 4
    assert found["publication_bytes"]["policy"] == 65_524_246_528
    assert found["fits"][0]["remedy"] == {"learner.offload": ["optimizer"]}


def test_a_model_that_cannot_be_reached_needs_its_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"does not hold its config.json; .*--model-config FILE.*--params 8B"):
        plan(["qwen3_4b", "--gpu", "H100"])
    assert plan(["qwen3_4b", "--model-config", "models/arithmetic-base/config.json"]) == 0
    assert "820,608 parameters" in capsys.readouterr().out


def test_a_size_that_is_none() -> None:
    with pytest.raises(UserError, match="--params eight: write a number of parameters with M or B"):
        plan(["qwen3_4b", "--params", "eight"])


def test_every_gpu_has_a_name_on_the_command_line() -> None:
    assert set(GPUS) == set(GpuName.__args__)
