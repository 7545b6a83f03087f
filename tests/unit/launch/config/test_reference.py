"""docs/configuration.md has every key, says what a number counts, and is up to date."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from corewarding.launch.config.reference import COMMAND, Key, reference, sections
from corewarding.launch.config.tree import TrainConfig

PAGE = Path(__file__).resolve().parents[4] / "docs" / "configuration.md"
KEYS = [key for _, _, keys in sections() for key in keys]


def test_the_page_is_what_the_command_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), f"a settings field changed; run: {COMMAND}"


def leaves(model: BaseModel, content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys with their values; those of a section stand behind its name."""
    for name, value in content.items():
        inside = getattr(model, name)
        if isinstance(inside, BaseModel):
            yield from leaves(inside, value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_every_key_of_the_configuration_is_there_with_its_default() -> None:
    defaults = TrainConfig().model_dump(mode="json")
    assert {key.name: yaml.safe_load(key.default.strip("`")) for key in KEYS} == dict(leaves(TrainConfig(), defaults))


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
