"""The schema for editors: the shipped one is current, takes every shipped file, and refuses what a run would refuse."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from corewarding.launch.cli import main
from corewarding.launch.config.paths import RECIPES
from corewarding.launch.config.recipes import recipes
from corewarding.launch.config.schema import COMMAND, FILE, MARK, schema, schema_text

FILES = sorted(path for path in RECIPES.rglob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(schema())


def errors(content: dict[str, Any]) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(content)]


def test_the_shipped_schema_is_current() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert FILE.read_text() == schema_text(), f"run: {COMMAND}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_shipped_file_names_the_schema_and_fits_it(file: Path) -> None:
    title, line, *_ = file.read_text().splitlines()
    assert title.startswith("# ")
    assert (file.resolve().parent / line.removeprefix(MARK)).resolve() == FILE.resolve()
    assert errors(yaml.safe_load(file.read_text())) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"trian": {}}, "'trian' was unexpected"),
        ({"train": {"update": 3}}, "'update' was unexpected"),
        ({"train": {"updates": 0}}, "0 is less than the minimum of 1"),
        ({"rule": 3}, "3 is not valid under any of the given schemas"),
        ({"base": 3}, "3 is not valid under any of the given schemas"),
    ],
)
def test_mistakes_are_refused(content: dict[str, Any], message: str) -> None:
    assert any(message in error for error in errors(content)), errors(content)


def test_names_are_offered_and_those_of_plug_ins_are_taken() -> None:
    rule = schema()["properties"]["rule"]
    assert "co_rewarding_ii" in rule["anyOf"][0]["enum"]
    assert errors({"rule": "of_a_plug_in", "engine": {"kind": "mine"}}) == []


@pytest.mark.parametrize("recipe", recipes())
def test_a_copy_of_a_recipe_names_the_schema_and_fits_it(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my.yaml"
    assert main(["init", str(file), "--from", recipe]) == 0
    marks = [line for line in file.read_text().splitlines() if line.startswith(MARK)]
    assert marks == [f"{MARK}{FILE.resolve()}"]
    assert errors(yaml.safe_load(file.read_text())) == []


def test_the_command_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "--schema"]) == 0
    assert capsys.readouterr().out == schema_text()
