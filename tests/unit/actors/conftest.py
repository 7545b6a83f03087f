"""Fixtures of the embedded engine's tests."""

import pytest

from tests.tiny_models import write_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two models of one shape with different weights."""
    return [write_model(tmp_path_factory.mktemp(f"model{seed}"), seed=seed) for seed in (0, 1)]
