"""CW_ENGINES names the kinds to test (default: all that are installed). A named kind that is missing fails instead of skipping."""

import os
from collections.abc import Iterator

import pytest

from corewarding.actors.engines import ENGINES
from tests.engines.world import Learner, missing
from tests.tiny_models import write_model

KINDS = tuple(name for name, kind in ENGINES.items() if kind.has_model_logprobs)
NAMED = tuple(filter(None, os.environ.get("CW_ENGINES", "").split(",")))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", NAMED or KINDS, scope="module")


def require(kind: str) -> None:
    reason = missing(kind)
    if reason and NAMED:
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def installed(request: pytest.FixtureRequest) -> None:
    if "kind" in request.fixturenames:
        require(request.getfixturevalue("kind"))


@pytest.fixture(scope="session", autouse=True)
def no_shim_is_called(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The stand-ins for kernels without a CPU build may be imported, but not called."""
    calls = tmp_path_factory.mktemp("shims") / "calls"
    os.environ["CW_SGLANG_SHIM_CALLS"] = str(calls)
    yield
    assert not calls.exists(), calls.read_text()


@pytest.fixture(scope="session")
def tied(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two models of one shape with different weights, output layer tied to the embedding."""
    return [write_model(tmp_path_factory.mktemp("tied"), seed=seed, tied=True) for seed in (0, 1)]


@pytest.fixture(scope="session")
def untied(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [write_model(tmp_path_factory.mktemp("untied"), seed=seed, tied=False) for seed in (2, 3)]


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """With two key heads, one for each of two workers."""
    return [write_model(tmp_path_factory.mktemp("wide"), seed=seed, tied=True, kv_heads=2) for seed in (4, 5)]


@pytest.fixture
def learner() -> Iterator[Learner]:
    made = Learner()
    yield made
    made.close()
