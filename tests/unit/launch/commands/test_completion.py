"""The completion scripts, read by the shells themselves."""

import shutil
import subprocess
from pathlib import Path

import pytest

from corewarding.launch.cli import COMMANDS
from corewarding.launch.commands.completion import ARGUMENTS, flags_of, script
from corewarding.launch.commands.train import TrainArguments
from corewarding.rewards.rules.table import REWARD_RULES

_CALLS = {
    "bash": """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _corewarding
printf '%s\\n' "${COMPREPLY[@]}"
""",
    "zsh": """
compdef() { }
compadd() { shift; print -l -- ${(M)@:#${words[CURRENT]}*} }
_files() { print -l -- ${words[CURRENT]}*(N) }
source "$1"; shift
words=("$@"); CURRENT=$#; _corewarding
""",
}


@pytest.fixture(params=["bash", "zsh"])
def complete(request: pytest.FixtureRequest, tmp_path: Path):
    """A function of the words so far that returns what the shell offers for the last one."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    file = tmp_path / "completion"
    file.write_text(script(shell))
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "my config.yaml").write_text("")

    def completed(*words: str) -> list[str]:
        options = ["-f"] if shell == "zsh" else ["--norc"]
        command = [shell, *options, "-c", _CALLS[shell], shell, str(file), "corewarding", *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return [line for line in done.stdout.splitlines() if line]

    return completed


def test_commands_recipes_files_flags_and_values_are_offered(complete) -> None:
    assert complete("re") == ["resume", "replay", "rephrase", "recipes"]
    assert {"train", "completion", "--version"} <= set(complete(""))
    assert complete("train", "cp") == ["cpu", "cpu_lora"]
    assert complete("train", "my") == ["my config.yaml"]
    assert complete("data", "") == ["inspect", "my config.yaml"]
    assert complete("train", "cpu", "--train.warm") == ["--train.warmup-frac"]
    assert complete("submit", "cpu", "--addr") == ["--address"]
    assert complete("train", "cpu", "--addr") == []
    assert complete("train", "cpu", "--rule", "co_rewarding_ii") == ["co_rewarding_ii", "co_rewarding_iii"]
    assert complete("train", "cpu", "--staleness.on_exceed", "") == ["wait", "drop", "withhold"]
    assert complete("export", "runs/cpu", "--which", "t") == ["teacher"]


def test_every_command_is_completed() -> None:
    assert list(ARGUMENTS) == list(COMMANDS)


def test_flags_are_those_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    from corewarding.launch.cli import main

    for command, kinds in ARGUMENTS.items():
        if command in ("train", "submit", "resume", "data", "eval"):
            continue
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown = capsys.readouterr().out
        assert {word for word in shown.replace(",", " ").split() if word.startswith("--")} >= {
            flag.name for flag in flags_of(kinds[0])
        }, command
    flags = {flag.name: flag.values for flag in flags_of(TrainArguments)}
    assert flags["--rule"] == tuple(REWARD_RULES)
    assert {"--dry-run", "--train.lr", "--engine.no-deterministic", "--model.path"} <= flags.keys()
    assert "--no-dry-run" not in flags
