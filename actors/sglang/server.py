"""An SGLang server, started and owned here or running elsewhere, and the HTTP calls to it.

Its weight endpoints accept paths and pickles from anyone who reaches them. So our server listens only on loopback and requires a key
made for it. Its process group ends with the engine, also when the actor dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from corewarding.actors.engine import EngineError, EngineLostError
from corewarding.actors.settings import EngineSettings
from corewarding.weights.group import LOOPBACK

KEY = "COREWARDING_SGLANG_KEY"  # every user of the machine can read a command line
_STOP_S = 10.0
_LOG_LINES = 12


class SglangServer:
    """The constructor returns when the server is healthy. EngineError, with the end of the log, if it does not start."""

    def __init__(self, arguments: Mapping[str, Any], settings: EngineSettings, environment: Mapping[str, str]) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._log: Path | None = None
        if settings.url is not None:
            self.url, self.api_key = settings.url.rstrip("/"), settings.api_key
        else:
            port = _free_port()
            self.url, self.api_key = f"http://{LOOPBACK}:{port}", secrets.token_hex(16)
            self._start(dict(arguments) | {"host": LOOPBACK, "port": port}, settings, environment)
        parts = urlsplit(self.url)
        self.host, self.port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        self._wait(settings.start_timeout_s)
        if self.process is None:
            self._take_over(arguments["weight_version"])

    async def post(self, path: str, **body: Any) -> Any:
        """The answer's JSON or text; EngineError with the server's words if it refuses."""
        status, answer = await self.ask(path, **body)
        if status != 200:
            raise EngineError(f"the SGLang server refuses {path}: {status} {answer}")
        return answer

    async def ask(self, path: str, **body: Any) -> tuple[int, Any]:
        """Status and answer. EngineLostError if the server does not answer."""
        try:
            async with self._http().post(self.url + path, json=body) as response:
                text = await response.text()
                with contextlib.suppress(ValueError):
                    return response.status, json.loads(text)
                return response.status, text.strip()
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
            raise self._gone(error) from error

    async def stream(self, path: str, **body: Any) -> Any:
        """Server-sent events of one generation, each as its JSON. EngineLostError if they break off."""
        try:
            async with self._http().post(self.url + path, json=body) as response:
                if response.status != 200:
                    raise EngineError(f"the SGLang server refuses {path}: {response.status} {await response.text()}")
                async for line in response.content:
                    data = line.strip().removeprefix(b"data: ")
                    if data and data != b"[DONE]":
                        yield json.loads(data)
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
            raise self._gone(error) from error

    def call(self, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """Status and answer of a GET, or of a POST if there is a body. Blocks; for the start, before a loop runs."""
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers() | ({} if body is None else {"Content-Type": "application/json"})
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                text = response.read().decode()
                return response.status, json.loads(text) if text.startswith("{") else text
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        await asyncio.to_thread(self._end)

    def _start(self, arguments: dict[str, Any], settings: EngineSettings, environment: Mapping[str, str]) -> None:
        python = settings.python or sys.executable
        command = [python, str(Path(__file__).with_name("launch.py")), str(os.getpid())]
        for name, value in arguments.items():
            flag = f"--{name.replace('_', '-')}"
            if value is True:
                command.append(flag)
            elif value is not None and value is not False:
                command += [flag, *map(str, value if isinstance(value, list | tuple) else [value])]
        # Variables of ours and of Ray must not reach the other environment's Python.
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "RAY_"))
        }
        self._log = Path(tempfile.mkdtemp(prefix="corewarding-sglang-")) / "server.log"
        with open(self._log, "wb") as log:
            try:
                self.process = subprocess.Popen(
                    command,
                    env=kept | {"PYTHONUNBUFFERED": "1", KEY: self.api_key or ""} | dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise EngineError(f"engine.python {python}: cannot be started: {error}") from error

    def _wait(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(OSError):
                if self.process is None:
                    self._release()
                if self.call("/health")[0] == 200:
                    return
            if self.process is not None and self.process.poll() is not None:
                raise EngineError(
                    f"the SGLang server did not start (exit code {self.process.returncode}):\n{self._tail()}"
                )
            if time.monotonic() > deadline:
                self._end(keep_log=True)
                raise EngineError(
                    f"the SGLang server at {self.url} was not healthy after {timeout_s:g} s:\n{self._tail()}"
                )
            time.sleep(0.2)

    def _release(self) -> None:
        """Ends an earlier user's requests, open update and pause. A paused server does not report itself healthy."""
        self.call("/abort_request", {"abort_all": True})
        self.call("/end_weight_update", {})  # refused if none is open
        self.call("/continue_generation", {})

    def _take_over(self, version: str) -> None:
        """Flushes a reused server's cache, because version numbers may repeat, and sets the version of its weights."""
        wanted = {"/flush_cache": {}, "/update_weight_version": {"new_version": version, "abort_all_requests": False}}
        deadline = time.monotonic() + _STOP_S
        for path, body in wanted.items():
            while (answered := self.call(path, body))[0] not in (200, 404):  # 404: an old server without versions
                if time.monotonic() > deadline:
                    raise EngineError(f"the SGLang server at {self.url} refuses {path}: {answered[0]} {answered[1]}")
                time.sleep(0.05)

    def _end(self, *, keep_log: bool = False) -> None:
        process = self.process
        if process is None or process.poll() is not None:
            return
        for signal_ in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal_)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # children that outlived it
        if self._log is not None and not keep_log:
            shutil.rmtree(self._log.parent, ignore_errors=True)

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers(),
                timeout=aiohttp.ClientTimeout(total=None),
                connector=aiohttp.TCPConnector(limit=0),
            )
        return self._session

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def _gone(self, error: BaseException) -> EngineLostError:
        code = self.process.poll() if self.process is not None else None
        what = f"ended with exit code {code}:\n{self._tail()}" if code is not None else f"does not answer: {error!r}"
        return EngineLostError(f"the SGLang server at {self.url} {what}")

    def _tail(self) -> str:
        """The end of the log, indented so that a traceback in it is not taken for the error itself."""
        if self._log is None:
            return ""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join([*(f"  {line}" for line in lines[-_LOG_LINES:]), f"(all of it: {self._log})"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
