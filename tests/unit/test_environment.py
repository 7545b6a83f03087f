"""environment.yml and pyproject.toml ask for the same packages."""

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_conda_pins_are_pyprojects() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in conda if isinstance(entry, dict))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(p for p in pip if not p.startswith("-e")) == sorted(project["dependencies"])
    assert "python=3.11" in conda
    assert project["requires-python"] == ">=3.11"
