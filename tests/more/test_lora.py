"""A run that trains an adapter on two ranks: stopped, resumed, replayed bit for bit, evaluated and exported."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from corewarding.launch.cli import main
from corewarding.launch.config.load import make_config
from corewarding.launch.config.paths import PACKAGE
from corewarding.launch.run.train import run_training

BASE = PACKAGE / "models" / "arithmetic-base"
KEYS = {
    "rule": "co_rewarding_ii",
    "data": {"num_train": 64, "num_heldout": 16, "max_prompt_tokens": 48},
    "rollout": {"group_size": 4, "max_new_tokens": 24},
    "engine": {"slots": 32},
    "train": {"questions_per_update": 4, "updates": 3, "lr": 2e-3},
    "learner": {"ranks": 2, "cpus_per_rank": 0.5, "lora": {"rank": 4, "alpha": 8}},
    "publish": {"bucket_mb": 0.25},
    "eval": {"every_updates": 0, "num_questions": 8, "quick_questions": 4, "samples": 2},
    "checkpoint": {"every_updates": 1},
}


@pytest.mark.timeout(600)
def test_an_adapter_is_stopped_resumed_replayed_evaluated_and_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in ({"max_wall_s": 0.001}, {"resume": "must"}):
        run_training(make_config(KEYS | {"run": {"name": "a", "root": str(tmp_path), **run}}, where="test"))
    rows = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows if row["kind"] == "update"] == [1, 2, 3]
    assert main(["replay", str(tmp_path / "a")]) == 0
    assert "the weights of 3 updates are equal, bit for bit" in capsys.readouterr().out
    checkpoint = tmp_path / "a" / "checkpoints" / "step-000003"
    size = sum(path.stat().st_size for path in (checkpoint / "learner").iterdir())
    assert size < 0.5 * (BASE / "model.safetensors").stat().st_size
    words = [str(tmp_path / "a"), "--num-questions", "4", "--samples", "2"]
    assert main(["eval", *words, "--out", str(tmp_path / "evaluated")]) == 0
    for which in ("policy", "teacher"):
        assert main(["export", str(tmp_path / "a"), "--out", str(tmp_path / which), "--which", which]) == 0
        words = ["--out", str(tmp_path / f"{which}-adapter"), "--which", which, "--adapter"]
        assert main(["export", str(tmp_path / "a"), *words]) == 0
        base = AutoModelForCausalLM.from_pretrained(BASE)
        merged = PeftModel.from_pretrained(base, tmp_path / f"{which}-adapter").merge_and_unload().state_dict()
        for name, weight in load_file(tmp_path / which / "model.safetensors").items():
            torch.testing.assert_close(merged[name], weight, rtol=0, atol=1e-6)
