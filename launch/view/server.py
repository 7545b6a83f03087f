"""The viewer's server: on loopback, GET only, behind a word in the address that is made anew at every start.

Other users of the machine do not know the word; a page of another site can neither guess it nor reach us under a name of its own,
because the Host header must be ours. The pages themselves may load nothing but our files (Content-Security-Policy).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from corewarding.dataflow.errors import UserError
from corewarding.dataflow.ids import SOURCES, VIEWS
from corewarding.launch.report.tables.output import json_line
from corewarding.launch.view.details import NoSuchSampleError, asking, number_of, tokens
from corewarding.launch.view.live.live import UPDATES, LiveRun, board
from corewarding.launch.view.loopback import HOST, address_of, new_word
from corewarding.launch.view.run import ViewedRun
from corewarding.launch.view.search.filters import Filter, rows_of

PAGE = Path(__file__).with_name("page")
MAX_ROWS = 500
"""Most rows of one answer."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Serves some runs until `close`."""

    def __init__(self, runs: Sequence[ViewedRun], listener: socket.socket, *, word: str | None = None) -> None:
        """word: of the address; None: a new one. The listener is closed with the server."""
        self._runs: dict[str, ViewedRun] = {}
        self._live: dict[str, LiveRun] = {}
        for run in runs:
            self.add(run)
        self._socket, self._word = listener, word or new_word()
        self.port: int = listener.getsockname()[1]
        self._runner: web.AppRunner | None = None

    def add(self, run: ViewedRun) -> None:
        """Shows one more run."""
        self._live[run.name] = LiveRun(run)
        self._runs[run.name] = run

    @property
    def address(self) -> str:
        return address_of(self.port, self._word)

    async def start(self) -> None:
        app = web.Application(middlewares=[self._guard])
        base = f"/{self._word}"
        app.router.add_get(f"{base}/", self._file)
        app.router.add_get(f"{base}/{{name:(?:live/)?[a-z]+\\.(?:js|css|svg)}}", self._file)
        for name, answer in self._answers().items():
            app.router.add_get(f"{base}/api/{name}", self._api(answer))
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("Host") not in {f"{name}:{self.port}" for name in (HOST, "localhost")}:
            raise web.HTTPForbidden(text="the viewer answers on 127.0.0.1 alone", headers=_HEADERS)
        try:
            response = await handler(request)
        except web.HTTPException as error:
            error.headers.update(_HEADERS)
            raise
        response.headers.update(_HEADERS)
        return response

    async def _file(self, request: web.Request) -> web.StreamResponse:
        path = PAGE / request.match_info.get("name", "index.html")
        if not path.is_file():
            raise web.HTTPNotFound
        return web.Response(body=path.read_bytes(), content_type=_TYPES[path.suffix], charset="utf-8")

    def _api(self, answer: Callable[[dict[str, str]], Any]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                found = await asyncio.to_thread(answer, dict(request.query))
            except NoSuchSampleError as error:
                return _json({"error": str(error)}, status=404)
            except UserError as error:
                return _json({"error": str(error)}, status=400)
            return _json(found)

        return handle

    def _run(self, query: dict[str, str]) -> ViewedRun:
        name = query.pop("run", "")
        if name not in self._runs:
            raise NoSuchSampleError(f"no run {name!r} is open; there are {', '.join(self._runs)}")
        return self._runs[name]

    def _answers(self) -> dict[str, Callable[[dict[str, str]], Any]]:
        return {
            "runs": lambda query: [run.about() for run in self._runs.values()],
            "samples": self._samples,
            "rows": self._rows,
            "asking": self._asking,
            "tokens": self._tokens,
            "live": self._live_run,
            "board": lambda query: board(list(self._runs.values())),
        }

    def _live_run(self, query: dict[str, str]) -> dict[str, Any]:
        run = self._run(query)
        updates = _number(query["updates"]) if query.get("updates") else UPDATES
        return self._live[run.name].content(updates=max(1, updates), known=query.get("known", ""))

    def _samples(self, query: dict[str, str]) -> dict[str, Any]:
        run = self._run(query)
        return {"numbers": Filter.of(query).numbers(run.db, run.texts)}

    def _rows(self, query: dict[str, str]) -> list[dict[str, Any]]:
        run = self._run(query)
        return rows_of(run.db, [_number(word) for word in query.get("n", "").split(",")[:MAX_ROWS]])

    def _asking(self, query: dict[str, str]) -> dict[str, Any]:
        run = self._run(query)
        return asking(run, _number(query["n"]) if "n" in query else number_of(run, query.get("id", "")))

    def _tokens(self, query: dict[str, str]) -> list[dict[str, Any]]:
        run = self._run(query)
        view = next((one for one in VIEWS if one == query.get("view")), VIEWS[0])
        source = next((one for one in SOURCES if one == query.get("source")), SOURCES[0])
        return tokens(run, _number(query.get("n", "")), view, source)


def _number(word: str) -> int:
    if not word.isdecimal() or len(word) > 15:
        raise NoSuchSampleError(f"{word[:40]!r} is no number of an asking")
    return int(word)


def _json(content: Any, status: int = 200) -> web.Response:
    return web.Response(text=json_line(content), content_type="application/json", status=status)
