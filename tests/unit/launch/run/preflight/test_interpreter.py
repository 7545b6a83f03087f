"""Another Python is asked what it has; a program that is none says why."""

import sys
from pathlib import Path

import pytest
import torch

from corewarding.launch.run.preflight import interpreter
from corewarding.launch.run.preflight.interpreter import InterpreterError, ask


def program(folder: Path, text: str) -> str:
    path = folder / "program"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_it_says_what_it_has_without_importing_it(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").write_text("raise SystemExit('imported')")
    found = ask(sys.executable, ["numpy", "no_such_package", "broken"], {"PYTHONPATH": str(tmp_path)})
    assert found.has == {"numpy", "broken"}
    assert found.version == ".".join(map(str, sys.version_info[:3]))
    assert found.cuda == torch.version.cuda


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be started: No such file or directory"),
        ("#!/bin/sh\nexit 3\n", "no working Python interpreter: exit code 3, it says 'nothing'"),
        ("#!/bin/sh\necho hello\n", "exit code 0, it says 'hello'"),
        ("#!/no/such/interpreter\n", "cannot be started"),
        ("#!/bin/sh\nexec sleep 60\n", r"gives no answer within 0\.5 s"),
    ],
)
def test_what_is_no_interpreter_says_why(
    text: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter, "TIMEOUT_S", 0.5)
    path = str(tmp_path / "nope") if text is None else program(tmp_path, text)
    with pytest.raises(InterpreterError, match=message):
        ask(path, ["numpy"], {})
