"""Every `corewarding` line in the README and the docs is a command that exists, with flags and keys that exist."""

import importlib
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from corewarding.launch.cli import COMMANDS, main
from corewarding.launch.commands.submit import SubmitArguments
from corewarding.launch.commands.train import TrainArguments
from corewarding.launch.config.command_line import ConfigArguments, parse_config

ROOT = Path(__file__).resolve().parents[2]
CONFIGURED: dict[str, type[ConfigArguments]] = {"train": TrainArguments, "submit": SubmitArguments}


def blocks(text: str) -> str:
    """The contents of the code blocks, with continued lines joined."""
    return "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)).replace("\\\n", " ")


LINES = [
    line
    for page in ("README.md", "docs/plugins.md", "docs/evaluation.md", "docs/staleness.md")
    for line in blocks((ROOT / page).read_text()).splitlines()
    if line.startswith("corewarding ")
]


def test_the_readme_has_commands() -> None:
    assert len(LINES) > 20


@pytest.mark.usefixtures("fresh_tables")
@pytest.mark.parametrize("line", LINES)
def test_a_documented_command_is_accepted(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, command, *words = shlex.split(line, comments=True)
    assert command in COMMANDS
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    assert main(["init", "my.yaml", "--from", "cpu"]) == 0
    if command in CONFIGURED:
        parse_config(CONFIGURED[command], words, command=command)
        return
    module: Any = importlib.import_module(f"corewarding.launch.commands.{COMMANDS[command]}")
    mode = [word for word in words if word in ("--regrade", "--compare", "inspect")]
    with pytest.raises(SystemExit) as stop:
        module.run([*mode, "--help"])
    assert stop.value.code == 0
    told = capsys.readouterr().out
    for flag in (word for word in words if word.startswith("--") and word not in mode):
        assert flag in told, f"{flag} is not in the help of {command}"
