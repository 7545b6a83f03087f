"""A hub of one model for tests: a real server process, and what it was asked."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIRST, SECOND = "a" * 40, "b" * 40
"""Commits."""


@dataclass(frozen=True, slots=True)
class SmallHub:
    """A running hub."""

    url: str
    root: Path

    def add(self, hub_id: str, folder: str | Path, commit: str = FIRST) -> Path:
        """Serves a copy of `folder` as the newest commit of a model; returns the copy."""
        served = self.root / hub_id / commit
        shutil.copytree(folder, served)
        (self.root / hub_id / "main").write_text(commit)
        return served

    def requests(self, method: str) -> list[str]:
        """The paths of the answered requests of that method, in order."""
        log = self.root / "requests"
        rows = [line.split() for line in log.read_text().splitlines()] if log.is_file() else []
        return [path for one, path, status in rows if one == method and status.startswith("2")]

    def downloads(self) -> list[str]:
        """The files that were sent, in order."""
        return [path.split("/resolve/")[1].split("/", 1)[1] for path in self.requests("GET") if "/resolve/" in path]


@contextlib.contextmanager
def small_hub(root: Path) -> Iterator[SmallHub]:
    """Starts an empty hub, which ends with the context."""
    root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.hub_server", str(root)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield SmallHub(f"http://127.0.0.1:{int(server.stdout.readline())}", root)
        finally:
            server.terminate()
