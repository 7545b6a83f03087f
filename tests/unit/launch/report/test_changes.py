"""What may change when a run continues: where and how it works, its length by `resume`, and everything before its first checkpoint."""

import json
import stat

import pytest
import yaml

from corewarding.launch.config.load import load_config, make_config
from corewarding.launch.report.run_directory import RunDir, RunDirError


def config(tmp_path, **changes):
    return make_config({"run": {"name": "a", "root": str(tmp_path)} | changes.pop("run", {}), **changes}, where="test")


@pytest.fixture
def run_dir(tmp_path):
    """A run of 4 updates that was interrupted after its second."""
    run_dir = RunDir(tmp_path, "a")
    run_dir.open(config(tmp_path, train={"updates": 4, "lr": 0.2}))
    (run_dir.checkpoints / "step-000002").mkdir()
    (run_dir.checkpoints / "step-000002" / "COMMITTED").touch()
    return run_dir


def resumed(tmp_path, **changes):
    return config(tmp_path, **({"train": {"updates": 4, "lr": 0.2}} | changes), run={"resume": "must"})


def test_a_key_that_stays_is_refused_with_its_saved_and_its_new_value(run_dir, tmp_path):
    before = run_dir.config.read_text()
    for given in (
        config(tmp_path, train={"updates": 4, "lr": 0.5}),
        resumed(tmp_path, train={"updates": 4, "lr": 0.5}),
    ):
        with pytest.raises(RunDirError, match=r"train\.lr: 0\.2 -> 0\.5"):
            run_dir.open(given)
    with pytest.raises(
        RunDirError, match=r"train\.updates: 4 -> 8; `corewarding resume .*a --train\.updates 8` changes"
    ):
        run_dir.open(config(tmp_path, train={"updates": 8, "lr": 0.2}))
    assert run_dir.config.read_text() == before


def test_adapters_stay_though_other_keys_of_the_learner_may_change(run_dir, tmp_path):
    run_dir.open(resumed(tmp_path, learner={"threads": 2}))
    with pytest.raises(RunDirError, match=r"learner\.lora"):
        run_dir.open(resumed(tmp_path, learner={"threads": 2, "lora": {"rank": 4}}))


def test_a_resume_may_change_the_length_and_where_a_run_works_and_both_are_recorded(run_dir, tmp_path):
    longer = resumed(tmp_path, train={"updates": 8, "lr": 0.2}, rollout={"policy_actors": 3}, engine={"slots": 16})
    assert run_dir.open(longer) is True
    assert [str(change) for change in run_dir.changes] == [
        "rollout.policy_actors: 1 -> 3", "engine.slots: 128 -> 16", "train.updates: 4 -> 8",
    ]  # fmt: skip
    rows = [json.loads(line) for line in (run_dir.path / "changes.jsonl").read_text().splitlines()]
    assert [(row["after_update"], row["key"], row["old"], row["new"]) for row in rows][-1] == (2, "train.updates", 4, 8)
    saved = yaml.safe_load(run_dir.config.read_text())
    assert (saved["train"]["updates"], saved["rollout"]["policy_actors"]) == (8, 3)
    with pytest.raises(
        RunDirError, match=r"train\.updates 1 is less than the 2 updates that .* has made; give 2 or more"
    ):
        run_dir.open(resumed(tmp_path, train={"updates": 1, "lr": 0.2}, rollout={"policy_actors": 3}))


def test_a_run_without_a_checkpoint_never_blocks_a_corrected_retry(run_dir, tmp_path):
    (run_dir.checkpoints / "step-000002" / "COMMITTED").unlink()
    run_dir.metrics.write_text('{"update": 1}\n')
    run_dir.open(config(tmp_path, rule="entropy", train={"updates": 9}))
    assert yaml.safe_load(run_dir.config.read_text())["rule"] == "entropy"
    assert not (run_dir.path / "changes.jsonl").exists()
    assert not run_dir.metrics.exists()  # its updates happen again


def test_a_finished_run_is_known_by_its_summary(run_dir, tmp_path):
    assert run_dir.finished(resumed(tmp_path)) is None
    run_dir.summary.write_text('{"updates": 4}')
    assert run_dir.finished(resumed(tmp_path)) == {"updates": 4}
    assert run_dir.finished(resumed(tmp_path, train={"updates": 8, "lr": 0.2})) is None


def test_secrets_are_masked_in_what_is_saved_and_come_back_for_a_resume(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["corewarding", "train", "cpu", "--engine.api-key", "sk-1"])
    engine = {"kind": "sglang", "url": "http://x:1", "api_key": "sk-1"}
    run_dir = RunDir(tmp_path, "a")
    run_dir.open(config(tmp_path, rule="entropy", engine=engine))
    secret, *readable = sorted(run_dir.path.glob("*.*"), key=lambda path: path.name != "secrets.json")
    assert not any("sk-1" in path.read_text() for path in readable if path.is_file())
    assert json.loads((run_dir.path / "environment.json").read_text())["command"][-1] == "***"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert load_config(run_dir.config).engine.api_key == "sk-1"
