"""What a user sees of a server that does not come up, and what travels to one that does; real servers are in tests/engines."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

from corewarding.actors.engine import EngineError
from corewarding.actors.settings import EngineSettings
from corewarding.actors.sglang.buckets import in_buckets
from corewarding.actors.sglang.relay import described
from corewarding.actors.sglang.server import SglangServer


def test_a_server_that_ends_at_once_shows_the_end_of_its_log() -> None:
    with pytest.raises(EngineError, match=r"exit code 1(.|\n)*No module named .?sglang"):
        SglangServer({"model_path": "x"}, EngineSettings(kind="sglang", python=sys.executable), {})


def test_a_python_that_is_not_there_is_named() -> None:
    with pytest.raises(EngineError, match=r"engine.python /no/python: cannot be started"):
        SglangServer({}, EngineSettings(kind="sglang", python="/no/python"), {})


def test_a_server_that_does_not_become_healthy_leaves_the_log_that_is_named(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho thinking\nsleep 60\n")
    python.chmod(0o755)
    settings = EngineSettings(kind="sglang", python=str(python), start_timeout_s=0.5)
    with pytest.raises(EngineError, match=r"not healthy after 0\.5 s:\n  thinking") as error:
        SglangServer({}, settings, {})
    log = Path(str(error.value).split("(all of it: ")[1].rstrip(")"))
    assert log.read_text() == "thinking\n"
    shutil.rmtree(log.parent)


def test_a_url_without_a_server_is_given_up() -> None:
    settings = EngineSettings(kind="sglang", url="http://127.0.0.1:9", start_timeout_s=0.5)
    with pytest.raises(EngineError, match=r"http://127.0.0.1:9 was not healthy after 0.5 s"):
        SglangServer({}, settings, {})


def test_buckets_hold_whole_tensors_in_order() -> None:
    tensors = {name: torch.zeros(size) for name, size in (("a", 2), ("b", 4), ("c", 18), ("d", 1), ("e", 3))}
    assert [list(bucket) for bucket in in_buckets(tensors, 32)] == [["a", "b"], ["c"], ["d", "e"]]
    assert described(in_buckets(tensors, 32)[0]) == {
        "names": ["a", "b"],
        "dtypes": ["float32"] * 2,
        "shapes": [[2], [4]],
    }
