"""When a run's processes are forks of one."""

import sys
from typing import Any

import pytest

from corewarding.launch.config.load import load_config, make_config
from corewarding.launch.run.preflight.needs import can_fork


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked elsewhere")
@pytest.mark.parametrize(
    ("changes", "forks"), [({}, True), ({"run": {"fork": False}}, False), ({"learner": {"gpus_per_rank": 1}}, False)]
)
def test_forks_are_for_one_machine_without_gpus_and_can_be_refused(
    changes: dict[str, Any], forks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = make_config(changes, where="test")
    assert can_fork(config) == forks
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert not can_fork(config)


def test_the_shipped_recipes_for_gpus_do_not_fork() -> None:
    assert not can_fork(load_config("qwen3_4b"))
