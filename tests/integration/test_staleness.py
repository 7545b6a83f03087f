"""A learner slower than its actors, on real Ray: the bound is reached and kept, and what exceeds it meets its configured fate."""

import json

import pytest

from corewarding.launch.config.load import make_config
from corewarding.launch.run.train import run_training

pytestmark = pytest.mark.timeout(300)

UPDATES = 8


@pytest.fixture(scope="module")
def run_with(tmp_path_factory):
    def run(**staleness):
        root = tmp_path_factory.mktemp("runs")
        content = {
            "rule": "majority_vote",
            "data": {"num_train": 256, "num_heldout": 4, "max_prompt_tokens": 48},
            "rollout": {"group_size": 4, "max_new_tokens": 24},
            "engine": {"slots": 32},
            "staleness": staleness,
            "train": {"questions_per_update": 4, "updates": UPDATES, "lr": 1e-5},
            "learner": {"micro_batch_tokens": 64, "row_tokens": 64},  # many small pieces: slow
            "eval": {"every_updates": 0, "num_questions": 1, "samples": 2},
            "checkpoint": {"every_updates": 0},
            "run": {"name": "slow", "root": str(root), "watchdog_s": 120},
        }
        assert run_training(make_config(content, where="test")).stopped_early is None
        rows = [json.loads(line) for line in (root / "slow" / "metrics.jsonl").read_text().splitlines()]
        return [row for row in rows if row["kind"] == "update"]

    return run


def test_wait_reaches_the_bound_and_drops_nothing(run_with):
    rows = run_with(max=3, pipeline_depth=3)
    assert max(row["staleness/max"] for row in rows) == 3
    assert rows[-1]["ledger/num_dropped"] == rows[-1]["ledger/num_withheld"] == 0
    assert rows[-1]["ledger/num_trained"] == UPDATES * 16


def test_drop_evicts_what_passed_the_bound_and_still_makes_full_updates(run_with):
    rows = run_with(max=2, pipeline_depth=5, on_exceed="drop")
    assert max(row["staleness/max"] for row in rows) == 2
    assert rows[-1]["dropped/num_stale_policy"] == rows[-1]["ledger/num_dropped"] > 0
    assert rows[-1]["ledger/num_trained"] == UPDATES * 16


def test_withhold_masks_what_passed_the_bound(run_with):
    rows = run_with(max=2, pipeline_depth=5, on_exceed="withhold")
    assert max(row["staleness/max"] for row in rows) == 2
    assert rows[-1]["ledger/num_withheld"] > 0
    assert rows[-1]["ledger/num_dropped"] == 0
    assert rows[-1]["ledger/num_trained"] + rows[-1]["ledger/num_withheld"] == UPDATES * 16
