"""Every `corewarding` line in the README and the docs is a command that exists, with flags and keys that exist."""

import importlib
import math
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from corewarding.launch.cli import COMMANDS, main
from corewarding.launch.commands.submit import SubmitArguments
from corewarding.launch.commands.sweep import SweepArguments
from corewarding.launch.commands.train import TrainArguments
from corewarding.launch.config.command_line import ConfigArguments, parse_config
from corewarding.launch.config.load import load_config
from corewarding.launch.config.shown import compact_yaml, differing
from corewarding.launch.report.update_line import header, shown
from corewarding.launch.run.preflight.needs import needed
from corewarding.launch.sweep.arguments import SweepKeys, parse_sweep

ROOT = Path(__file__).resolve().parents[2]
SWEPT: dict[str, type[SweepKeys]] = {"sweep": SweepArguments, "submit": SubmitArguments}
CONFIGURED: dict[str, type[ConfigArguments]] = {"train": TrainArguments}


def blocks(text: str) -> str:
    """The contents of the code blocks, with continued lines joined."""
    return "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)).replace("\\\n", " ")


README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = (
    "README.md",
    *(
        f"docs/{name}.md"
        for name in ("plugins", "evaluation", "staleness", "engines", "tutorial", "own_data", "own_rule")
    ),
    *(f"docs/{name}.md" for name in ("first_gpu_run", "cluster")),
)
LINES = [
    line
    for page in PAGES
    for line in blocks((ROOT / page).read_text(encoding="utf-8")).splitlines()
    if line.startswith("corewarding ")
]
INLINE = [line for line in re.findall(r"`(corewarding [^`\n]+)`", README) if line.split()[1] in COMMANDS]


def test_the_readme_has_commands() -> None:
    assert len(LINES) > 20
    assert {line.split()[1] for line in (*LINES, *INLINE)} == set(COMMANDS)


def test_the_readme_fits_a_screen_and_its_links_lead_somewhere() -> None:
    assert max(map(len, README.splitlines())) <= 120
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_the_rule_in_the_readme_is_the_example() -> None:
    (rule,) = re.findall(r"^```python\n(.*?@cw\.reward_rule.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert rule in (ROOT / "examples" / "custom_rule.py").read_text(encoding="utf-8")
    assert len(rule.splitlines()) <= 15


def test_the_table_of_updates_in_the_readme_is_what_a_terminal_of_80_columns_shows() -> None:
    updates = load_config("cpu").train.updates
    head = header(updates, shown(updates, 80)).plain
    (output,) = re.findall(r"^```text\n(.*?self-test.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert head in output.splitlines()
    assert max(map(len, output.splitlines())) <= 80
    start = compact_yaml(differing(load_config("cpu")), 80)
    assert start in output, f"the start of a run is now:\n{start}"


def test_the_hardware_table_names_recipes_with_the_model_and_the_gpus_they_have() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\w.-]+) \| (\d+) x", README, re.MULTILINE)
    assert len(rows) >= 5
    for name, model, num in rows:
        config = load_config(name)
        assert Path(config.model.path).name == model, name
        assert math.ceil(needed(config).get("GPU", 0)) == int(num), name


@pytest.mark.usefixtures("fresh_tables")
@pytest.mark.parametrize("line", [*LINES, *INLINE])
def test_a_documented_command_is_accepted(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, command, *words = shlex.split(line, comments=True)
    assert command in COMMANDS
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    assert main(["init", "my.yaml", "--from", "cpu"]) == 0
    if command in SWEPT:
        parse_sweep(SWEPT[command], words, command=command)
        return
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
