"""What stands beside the code fits it: Dockerfile, citation, changelog, issue templates."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import corewarding
from corewarding.launch.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_badges_say_what_pyproject_says() -> None:
    licence, python = ((ROOT / f"docs/figures/badges/{name}.svg").read_text() for name in ("licence", "python"))
    assert f"licence: {PYPROJECT['project']['license']}" in licence
    assert f"Python: {PYPROJECT['project']['requires-python'].removeprefix('>=')} and newer" in python


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)


def test_the_dockerfile_is_made_of_known_instructions() -> None:
    words = {line.split()[0] for line in DOCKERFILE.splitlines() if line and not line.startswith("#")}
    assert words == {"FROM", "ARG", "RUN", "WORKDIR", "COPY", "USER", "ENV", "ENTRYPOINT", "CMD"}


def test_the_image_gets_every_file_of_the_package_and_nothing_that_does_not_exist() -> None:
    copied = [word for line in instructions("COPY") for word in line.split()[:-1]]
    assert [word for word in copied if not (ROOT / word).exists()] == []
    linked = {path.name for path in (ROOT / "corewarding").iterdir() if path.is_symlink()}
    assert linked <= set(copied)
    assert {PYPROJECT["project"]["readme"], "pyproject.toml", "corewarding"} <= set(copied)


def test_the_arguments_of_the_image_are_what_the_project_installs() -> None:
    given = dict(line.split("=", 1) for line in instructions("ARG"))
    assert f"TORCH ?= {given['TORCH']}\n" in (ROOT / "Makefile").read_text()
    assert given["EXTRAS"] in PYPROJECT["project"]["optional-dependencies"]
    (comment,) = re.findall(r"^# Extras of pyproject.toml, separated by commas: (.*)\.$", DOCKERFILE, re.MULTILINE)
    assert set(comment.split(", ")) <= set(PYPROJECT["project"]["optional-dependencies"])
    python = re.fullmatch(r"python:(\d+)\.(\d+)-slim", *instructions("FROM"))
    assert python is not None
    assert (int(python[1]), int(python[2])) >= (3, 11)
    assert instructions("CMD")[0].strip('[]"') in COMMANDS


def test_the_commands_at_its_top_are_those_of_the_page() -> None:
    shown = re.findall(r"^# \w+: +(docker .*)$", DOCKERFILE, re.MULTILINE)
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    assert len(shown) == 3
    assert all(line in page for line in shown)


def test_the_citation_is_the_one_of_the_readme() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["version"] == corewarding.__version__
    assert cited["license"] == PYPROJECT["project"]["license"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    paper = cited["preferred-citation"]
    assert all(f"{one['family-names']}, {one['given-names']}" in readme for one in paper["authors"])
    assert str(paper["year"]) in readme
    assert paper["title"] in readme.replace("{", "").replace("}", "")


def test_the_changelog_has_this_version_and_its_commands() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(corewarding.__version__)}\b", text, re.MULTILINE)
    (listed,) = re.findall(r"^- Commands: ([^.]*)\.$", text, re.MULTILINE)
    assert set(re.split(r",\s+", listed)) <= set(COMMANDS)


@pytest.mark.parametrize("name", ["bug", "idea"])
def test_an_issue_template_has_what_a_form_needs(name: str) -> None:
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text())
    assert set(form) == {"name", "description", "labels", "body"}
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(ids) == len(set(ids))
    for part in form["body"]:
        assert part["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
        assert ("value" if part["type"] == "markdown" else "label") in part["attributes"]
