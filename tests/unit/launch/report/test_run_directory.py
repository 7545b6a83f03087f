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
