"""Real MATH questions through the same program: both wordings under rule I, and recorded completions of a real model."""

import json
from pathlib import Path

import pytest

from corewarding.launch.config.load import make_config
from corewarding.launch.run.train import run_training

HERE = Path(__file__).resolve()
SHARED = next((p / "shared" / "data" for p in HERE.parents if (p / "shared" / "data").is_dir()), None)
pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(SHARED is None, reason="the shared data sets are not beside this checkout"),
]


def rows_of(path):
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "update"]


def test_math_pairs_train_under_rule_one(tmp_path):
    config = make_config(
        {
            "rule": "co_rewarding_i",
            "data": {
                "kind": "files",
                "train": str(SHARED / "train" / "math_original.parquet"),
                "rephrased": str(SHARED / "train" / "math_rephrased.parquet"),
                "limit": 48,
                "max_prompt_tokens": 200,
            },
            "rollout": {"group_size": 4, "max_new_tokens": 16},
            "engine": {"slots": 32},
            "train": {"questions_per_update": 4, "updates": 3},
            "run": {"name": "math", "root": str(tmp_path)},
        },
        where="test",
    )
    assert run_training(config).stopped_early is None
    rows = rows_of(tmp_path / "math")
    assert [row["update"] for row in rows] == [1, 2, 3]
    assert rows[-1]["ledger/num_trained"] == 3 * 4 * 2 * 4  # both wordings are trained
    summary = json.loads((tmp_path / "math" / "summary.json").read_text())
    assert summary["labels_read"] == 0


def test_recorded_completions_of_a_real_model_give_labels_and_a_gradient(tmp_path):
    script = SHARED / "completions" / "math_50x8.jsonl"
    recorded = [json.loads(line) for line in script.read_text().splitlines()]
    short = [row for row in recorded if max(map(len, row["completions"])) < 1500][:6]
    assert len(short) == 6
    chosen = tmp_path / "recorded.jsonl"
    chosen.write_text("".join(json.dumps(row) + "\n" for row in short))
    config = make_config(
        {
            "rule": "majority_vote",
            "data": {"kind": "files", "train": str(chosen), "max_prompt_tokens": 1000},
            "rollout": {"group_size": 8, "max_new_tokens": 1500},
            "engine": {"kind": "scripted", "script": str(chosen)},
            "correction": {"veto": None},
            "train": {"questions_per_update": 2, "updates": 3},
            "run": {"name": "recorded", "root": str(tmp_path)},
        },
        where="test",
    )
    assert run_training(config).stopped_early is None
    rows = rows_of(tmp_path / "recorded")
    assert len(rows) == 3
    assert max(row["reward/mean"] for row in rows) > 0
    assert all(row["label/share_mean"] > 0 for row in rows)
    assert max(row["train/grad_norm"] for row in rows) > 0


def test_the_two_identical_math_pairs_are_found(capsys):
    from corewarding.launch.commands.questions.data import inspect_data

    train = SHARED / "train"
    problems = inspect_data(
        str(train / "math_original.parquet"),
        rephrased=str(train / "math_rephrased.parquet"),
        split="train",
        model=None,
        system_prompt="",
        examples=0,
    )
    assert problems["identical"] == 2
    assert "2815 (the same words); 4458" in capsys.readouterr().out


def test_gold_answers_of_math_are_more_than_text():
    import pyarrow.parquet as pq

    from corewarding.rewards import canonical_key

    files = ("train/math_original.parquet", "eval/math_test.parquet")
    gold = [row["reward_model"]["ground_truth"] for name in files for row in pq.read_table(SHARED / name).to_pylist()]
    assert len(gold) == 12_500
    texts = [answer for answer in gold if canonical_key(answer).kind == "text"]
    assert len(texts) <= 0.01 * len(gold)
    assert sum("text" not in answer and "mbox" not in answer for answer in texts) <= 6
