"""The command line: every command has help that comes from its own file, and comes fast."""

import subprocess
import sys
from pathlib import Path

import pytest

from corewarding.launch.cli import COMMANDS, main
from corewarding.launch.config.load import load_config
from corewarding.launch.config.recipes import parts, recipes


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: corewarding {command}" in capsys.readouterr().out


def test_help_has_a_line_for_each_command_and_train_and_submit_list_their_own_flags(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(COMMANDS)
    assert all(len(line.split()) > 3 for line in lines if line.startswith("  "))
    for command, flags in {
        "train cpu": {"--dry-run", "--watch", "--train.lr"},
        "resume": {"--watch", "--train.lr"},
        "submit cpu": {"--dry-run", "--address", "--python"},
    }.items():
        with pytest.raises(SystemExit):
            main([*command.split(), "--help"])
        assert flags <= set(capsys.readouterr().out.replace(",", " ").split())


def test_help_imports_nothing_heavy() -> None:
    blocked = ("torch", "ray", "transformers", "tyro", "pydantic", "numpy")
    code = (
        f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
        "from corewarding.launch.cli import main\nsys.exit(main(['--help']) or main(['--version']))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_command_that_does_not_exist_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "did you mean train?" in capsys.readouterr().err


def test_recipes_are_listed_with_their_first_comment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[0] for line in lines if line]
    assert listed == [*recipes(), "parts,", *parts()]
    assert "two CPU cores" in next(line for line in lines if line.startswith("cpu "))


def test_init_copies_a_recipe_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "my.yaml", "--from", "cpu"]) == 0
    assert load_config("my.yaml") == load_config("cpu")
    Path("my.yaml").write_text("rule: random\n")
    assert main(["init", "my.yaml"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert Path("my.yaml").read_text() == "rule: random\n"
    assert main(["init", "my"]) == 2
    assert main(["init", "other.yaml", "--from", "cpuu"]) == 2
    assert "did you mean cpu?" in capsys.readouterr().err
