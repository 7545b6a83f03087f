"""A run's own Ray starts its processes by our small program, and is as before for whoever uses it afterwards."""

import os
from pathlib import Path

import psutil
import ray
from ray._private import ray_constants, services

from corewarding.launch.config.load import make_config
from corewarding.launch.run import placement
from corewarding.launch.run.forked import worker_setup


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
