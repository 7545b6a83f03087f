"""All runs of a test process on this machine fork their actors from one server, as the runs of a sweep do."""

from collections.abc import Iterator

import pytest

from corewarding.launch.run.forked.fork_server import forking


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> Iterator[None]:
    with forking():
        yield
