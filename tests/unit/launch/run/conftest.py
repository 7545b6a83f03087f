"""A world of fakes for tests of the controller."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.launch.run.world import World


@pytest.fixture
def world_of(tmp_path: Path) -> Callable[..., World]:
    """Makes a world; keys are sections of the configuration."""
    return lambda depth=1, updates=0, **changes: World(tmp_path, changes, depth=depth, updates=updates)
