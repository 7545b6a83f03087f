"""The server answers whoever knows the word in its address and speaks to it by its own name, and changes nothing."""

import contextlib
import re
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from corewarding.dataflow.errors import UserError
from corewarding.launch.view.loopback import listening
from corewarding.launch.view.run import ViewedRun
from corewarding.launch.view.server import PAGE, Server
from tests.sampled_run import SampledRun


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewedRun]:
    folder = tmp_path_factory.mktemp("runs") / "one"
    SampledRun(folder).make(2)
    with contextlib.closing(ViewedRun(folder, folder / "journal")) as found:
        found.read()
        yield found


@pytest.fixture
async def server(run: ViewedRun) -> AsyncIterator[Server]:
    server = Server([run], listening(0))
    await server.start()
    yield server
    await server.close()


async def test_the_page_and_the_samples(server: Server) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(server.address) as answer:
            assert answer.status == 200
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        for path in PAGE.rglob("*.*"):
            if path.suffix != ".html":
                async with session.get(server.address + path.relative_to(PAGE).as_posix()) as answer:
                    assert answer.status == 200, path
        async with session.get(server.address + "api/samples?run=one") as answer:
            numbers = (await answer.json())["numbers"]
        assert len(numbers) == 8
        async with session.get(server.address + f"api/rows?run=one&n={numbers[0]},{numbers[1]}") as answer:
            assert [row["n"] for row in await answer.json()] == numbers[:2]
        async with session.get(server.address + f"api/asking?run=one&n={numbers[0]}") as answer:
            assert len((await answer.json())["groups"]) == 4
        async with session.get(server.address + "api/runs") as answer:
            (about,) = await answer.json()
            assert (about["name"], about["rule"], about["updates"]) == ("one", "co_rewarding_iii", [1, 2])


async def test_the_page_of_a_run(server: Server) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(server.address + "api/board") as answer:
            board = await answer.json()
        assert board["groups"] == [{"name": "one", "runs": ["one"]}]
        assert {panel["kind"] for panel in board["panels"]} == {"curves", "ages", "lanes"}
        async with session.get(server.address + "api/live?run=one&updates=3") as answer:
            found = await answer.json()
        assert (found["name"], found["status"], found["update"], found["planned"]) == ("one", "interrupted", 0, 1000)
        assert [row[0] for row in found["ages"]] == [2]  # of 1000 planned updates, two share a point
        async with session.get(server.address + "api/live?run=one&updates=3&known=" + found["stamp"]) as answer:
            assert await answer.json() == {"stamp": found["stamp"]}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("api/live?run=two", 404),
        ("api/live?run=one&updates=many", 404),
        ("live/nothing.js", 404),
        ("live/../../server.py", 404),
        ("api/samples?run=two", 404),
        ("api/samples?run=one&wrong=maybe", 400),
        ("api/asking?run=one&n=999", 404),
        ("api/asking?run=one&id=nobody", 404),
        ("api/tokens?run=one&n=x&view=original&source=policy", 404),
        ("nothing.js", 404),
        ("..%2fserver.py", 404),
    ],
)
async def test_what_is_not_there_is_an_error_with_a_reason(server: Server, path: str, status: int) -> None:
    async with aiohttp.ClientSession() as session, session.get(server.address + path) as answer:
        assert answer.status == status
        assert "Content-Security-Policy" in answer.headers
        if answer.content_type == "application/json":
            assert (await answer.json())["error"]


async def test_others_are_refused(server: Server) -> None:
    root = f"http://127.0.0.1:{server.port}/"
    async with aiohttp.ClientSession() as session:
        for path in ("", "api/runs", "x" * 22 + "/api/runs"):
            async with session.get(root + path) as answer:
                assert answer.status == 404
        async with session.get(server.address, headers={"Host": f"evil.example:{server.port}"}) as answer:
            assert answer.status == 403
        for method in ("POST", "PUT", "DELETE"):
            async with session.request(method, server.address + "api/runs") as answer:
                assert answer.status == 405


def test_a_port_that_is_taken_is_named() -> None:
    with contextlib.closing(listening(0)) as taken:
        taken.listen()
        with pytest.raises(UserError, match="--port"):
            listening(taken.getsockname()[1])


def test_the_page_names_all_its_scripts_at_once() -> None:
    named = set(re.findall(r'(?:href|src)="([a-z/]+\.js)"', (PAGE / "index.html").read_text()))
    assert named == {path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*.js")} - {"file.js"}
