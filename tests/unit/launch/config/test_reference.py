"""docs/configuration.md has every key, says what a number counts, and is up to date."""

from pathlib import Path

import pytest
import yaml

from corewarding.launch.config.reference import COMMAND, Key, reference, sections
from corewarding.launch.config.tree import TrainConfig

PAGE = Path(__file__).resolve().parents[4] / "docs" / "configuration.md"
MAPPINGS = ("teacher_engine", "schedules")
"""Keys outside any section that hold a mapping."""
KEYS = [key for _, _, keys in sections() for key in keys]


def test_the_page_is_what_the_command_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), f"a settings field changed; run: {COMMAND}"


def test_every_key_of_the_configuration_is_there_with_its_default() -> None:
    defaults = TrainConfig().model_dump(mode="json")
    leaves = {
        f"{section}.{key}" if isinstance(value, dict) and section not in MAPPINGS else section: inner
        for section, value in defaults.items()
        for key, inner in (value.items() if isinstance(value, dict) and section not in MAPPINGS else [(section, value)])
    }
    assert {key.name: yaml.safe_load(key.default.strip("`")) for key in KEYS} == leaves


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_a_key_says_what_it_does_and_what_its_number_counts(key: Key) -> None:
    assert len(key.text.split()) >= 3, f"{key.name}: {key.text!r} is too short to explain a key"
    assert key.text.endswith((".", ")")), f"{key.name}: the text is a sentence"
    if not key.numeric:
        return
    assert key.unit is not None, (
        f"{key.name} needs a unit of dataflow/settings.py, for example Tokens, Seconds or Number"
    )
    stem = {"processes": "process", "sequences": "sequence"}.get(key.unit, key.unit.rstrip("s"))
    assert stem.lower() in key.text.lower(), f"{key.name} counts {key.unit}, but its text does not name them"
