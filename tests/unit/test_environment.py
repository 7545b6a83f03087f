"""environment.yml and environment-sglang.yml ask for the packages of pyproject.toml, and for versions that can exist together."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from corewarding.actors.engines import ENGINES

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def conda(name: str) -> tuple[dict[str, Any], list[str]]:
    """The content of an environment file, and its pip part without the checkout."""
    content = yaml.safe_load((ROOT / name).read_text())
    pip = next(entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict))
    return content, [entry for entry in pip if not entry.startswith("-e")]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("environment.yml", PROJECT["dependencies"] + EXTRAS["vllm"]), ("environment-sglang.yml", EXTRAS["sglang"])],
)
def test_conda_pins_are_pyprojects(name: str, wanted: list[str]) -> None:
    content, pip = conda(name)
    assert sorted(pip) == sorted(wanted)
    assert "python=3.11" in content["dependencies"]
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.11")
    assert len({Requirement(entry).name for entry in pip}) == len(pip)


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_an_extra_installs_a_version_of_the_engine_that_is_tested(kind: str) -> None:
    (pinned,) = (Requirement(entry) for entry in EXTRAS[kind])
    assert any(pinned.specifier.contains(version) for version in ENGINES[kind].tested)


def test_the_two_environments_have_names_of_their_own() -> None:
    assert {conda(name)[0]["name"] for name in ("environment.yml", "environment-sglang.yml")} == {
        "corewarding",
        "corewarding-sglang",
    }
