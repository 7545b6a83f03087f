"""What a user reads when an engine does not start or an actor dies."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from corewarding.actors.engine import EngineContext, EngineSettingsError
from corewarding.actors.engines import make_engine
from corewarding.actors.settings import EngineSettings
from corewarding.dataflow.errors import reason_of

CHAIN = """The actor died because of an error raised in its creation task, \x1b[36mray::RolloutActor.__init__()\x1b[39m
ValueError: an early cause

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "engine.py", line 1, in start
    raise EngineError(
corewarding.actors.engine.EngineError: the SGLang server did not start (exit code 1):
  Traceback (most recent call last):
  ImportError: no kernel

(all of it: server.log)
"""


def test_the_reason_is_what_was_raised_last_with_all_its_lines() -> None:
    assert reason_of(RuntimeError(CHAIN)) == (
        "corewarding.actors.engine.EngineError: the SGLang server did not start (exit code 1):\n"
        "  Traceback (most recent call last):\n  ImportError: no kernel\n(all of it: server.log)"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [("one line", "one line"), ("a node died\nits address: 1.2.3.4\n", "its address: 1.2.3.4"), ("", "RuntimeError")],
)
def test_a_report_without_a_traceback_gives_its_last_line(text: str, reason: str) -> None:
    assert reason_of(RuntimeError(text)) == reason


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_an_engine_that_is_not_installed_names_the_remedies(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        EngineSettingsError, match=rf"has no {kind}; set engine.python .*\.venv-{kind}/bin/python.*\[{kind}\]"
    ):
        make_engine(EngineContext(settings=EngineSettings(kind=kind), model_path=str(tmp_path), max_model_len=8))
