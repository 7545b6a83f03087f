"""All runs of a test process fork their actors from one server, so that torch is imported once and not in each actor of each run."""

from collections.abc import Iterator

import pytest

from corewarding.launch.run.forked.fork_server import forking


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> Iterator[None]:
    with forking():
        yield
