"""A run's own Ray: the folder of its files is this user's alone, and its processes start by our small program."""

import os
import stat
from pathlib import Path

import psutil
import pytest
import ray
from ray._private import ray_constants, services

from corewarding.launch.config.load import make_config
from corewarding.launch.run import placement
from corewarding.launch.run.ending.own_ray import OwnRayError, own_folder
from corewarding.launch.run.forked import worker_setup


def test_the_folder_is_closed_to_others_also_where_it_was_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "new"))
    folder = own_folder()
    assert folder.parent == tmp_path / "new"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)
    assert own_folder() == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_link_in_its_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    folder = own_folder()
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OwnRayError, match=r"belongs to another user; set RAY_TMPDIR"):
        own_folder()
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o700


def test_processes_start_by_our_program(tmp_path: Path) -> None:
    before = services.get_node, ray_constants.SETUP_WORKER_FILENAME
    config = make_config(
        {"rule": "majority_vote", "data": {"kind": "arithmetic"}, "run": {"root": str(tmp_path)}}, where="test"
    )
    with placement.connected(config):
        words = [
            word
            for child in psutil.Process().children(recursive=True)
            if child.name() == "raylet"
            for word in child.cmdline()
        ]
        assert any(worker_setup.__file__ in word for word in words)

        @ray.remote(num_cpus=0, runtime_env={"env_vars": {"CW_GIVEN": "${HOME}"}})
        def given() -> str:
            return os.environ["CW_GIVEN"]

        assert ray.get(given.remote()) == os.environ["HOME"]
    assert (services.get_node, ray_constants.SETUP_WORKER_FILENAME) == before
