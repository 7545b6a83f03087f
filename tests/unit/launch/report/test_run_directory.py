"""A run's folder: who may use it, and what lies in it at the start."""

import json

import pytest
import yaml

from corewarding.launch.config.load import make_config
from corewarding.launch.report.run_directory import RunDir, RunDirError


def config(tmp_path, **changes):
    return make_config({"run": {"name": "a", "root": str(tmp_path)} | changes.pop("run", {}), **changes}, where="test")


@pytest.fixture
def opened(tmp_path):
    run_dir = RunDir(tmp_path, "a")
    assert run_dir.open(config(tmp_path)) is False
    return run_dir


def test_a_new_folder_holds_the_resolved_configuration_and_the_environment(opened, tmp_path):
    saved = yaml.safe_load(opened.config.read_text())
    assert make_config(saved, where="saved") == config(tmp_path)
    assert json.loads((opened.path / "environment.json").read_text())["packages"]["torch"]
    assert all(folder.is_dir() for folder in (opened.tensorboard, opened.samples, opened.checkpoints))


def test_an_interrupted_run_goes_on(opened, tmp_path):
    assert opened.open(config(tmp_path)) is True
    assert opened.open(config(tmp_path, eval={"every_updates": 7})) is True  # may differ


def test_another_configuration_is_refused_and_named(opened, tmp_path):
    before = opened.config.read_text()
    (opened.checkpoints / "step-000001").mkdir()
    (opened.checkpoints / "step-000001" / "COMMITTED").touch()
    with pytest.raises(RunDirError, match=r"train\.lr: 3e-06 -> 0\.5"):
        opened.open(config(tmp_path, train={"lr": 0.5}))
    assert opened.config.read_text() == before


def test_a_finished_run_is_not_overwritten(opened, tmp_path):
    opened.summary.write_text("{}")
    with pytest.raises(RunDirError, match="a finished run already"):
        opened.open(config(tmp_path))


def test_never_and_must(opened, tmp_path):
    with pytest.raises(RunDirError, match="holds a run already"):
        opened.open(config(tmp_path, run={"resume": "never"}))
    with pytest.raises(RunDirError, match="holds no run to resume"):
        RunDir(tmp_path, "b").open(config(tmp_path, run={"name": "b", "resume": "must"}))


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("years")
    with pytest.raises(RunDirError, match="holds no run of ours"):
        RunDir(tmp_path, "a").open(config(tmp_path))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["thesis.tex"]


def committed(run_dir, update):
    folder = run_dir.checkpoints / f"step-{update:06d}"
    folder.mkdir()
    (folder / "COMMITTED").touch()


@pytest.mark.parametrize("content", [b"", b"- a\n- b\n", b"run: {name", bytes(range(256))])
def test_a_damaged_configuration_is_named_or_written_again(opened, tmp_path, content):
    whole = opened.config.read_bytes()
    opened.config.write_bytes(content)
    with pytest.raises(RunDirError, match=r"config\.yaml is empty or garbled"):
        opened.saved()
    assert opened.open(config(tmp_path)) is True  # no checkpoint yet, so it starts again
    assert opened.config.read_bytes() == whole
    committed(opened, 1)
    opened.config.write_bytes(content)
    with pytest.raises(RunDirError, match=r"config\.yaml is empty or garbled"):
        opened.open(config(tmp_path))


def test_a_start_that_was_killed_at_once_starts_again(tmp_path):
    (tmp_path / "a").mkdir()
    for name in (".lock", ".config.yaml.tmp", "secrets.json"):
        (tmp_path / "a" / name).write_text("{")
        assert RunDir(tmp_path, "a").check(config(tmp_path)) is False
    assert RunDir(tmp_path, "a").open(config(tmp_path)) is False


def test_what_updates_without_a_checkpoint_logged_is_forgotten(opened, tmp_path):
    opened.metrics.write_text('{"update": 1}')
    (opened.samples / "update-000001.jsonl").write_text("{}")
    opened.open(config(tmp_path))
    assert not opened.metrics.exists()
    assert not list(opened.samples.iterdir())
    committed(opened, 1)
    opened.metrics.write_text('{"update": 1}')
    opened.open(config(tmp_path))
    assert opened.metrics.exists()


def test_links_and_other_names_are_no_checkpoints(opened, tmp_path):
    committed(RunDir(tmp_path, "a"), 7)
    (opened.checkpoints / "step-000099").symlink_to(opened.checkpoints / "step-000007")
    (opened.checkpoints / "step-last").mkdir()
    (opened.checkpoints / "step-last" / "COMMITTED").touch()
    assert opened.last_update() == 7


def test_a_cut_summary_is_of_no_finished_run(opened, tmp_path):
    opened.summary.write_text(json.dumps({"updates": config(tmp_path).train.updates}))
    assert opened.finished(config(tmp_path))
    opened.summary.write_text('{"updates": ')
    assert opened.finished(config(tmp_path)) is None


def test_changes_go_on_after_a_torn_line(opened, tmp_path):
    committed(opened, 3)
    (opened.path / "changes.jsonl").write_text('{"key": "a"}\n{"key": ')
    opened.open(config(tmp_path, eval={"every_updates": 7}))
    rows = [json.loads(line) for line in (opened.path / "changes.jsonl").read_text().splitlines()]
    assert [row["key"] for row in rows] == ["a", "eval.every_updates"]
