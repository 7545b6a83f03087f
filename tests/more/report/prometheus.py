"""A real Prometheus for tests, which scrapes runs of this machine and answers queries."""

import contextlib
import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.more.cluster import free_port

needs = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")


@dataclass(frozen=True)
class Prometheus:
    port: int

    def asks(self, path: str, **words: str) -> list[dict[str, Any]]:
        """The result of a query."""
        address = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(words)}"
        with urllib.request.urlopen(address, timeout=5) as answer:
            result: list[dict[str, Any]] = json.loads(answer.read())["data"]["result"]
        return result

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.asks("query", query="vector(1)"))
        return False


@contextmanager
def prometheus(folder: Path, targets: Sequence[int], rules: Sequence[Path] = ()) -> Iterator[Prometheus]:
    """One that looks at these ports of this machine, and at its rules, every second."""
    port = free_port()
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [
            {"job_name": "run", "static_configs": [{"targets": [f"127.0.0.1:{target}" for target in targets]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    words = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(["prometheus", *words, f"--web.listen-address=127.0.0.1:{port}"], stderr=log)
    try:
        found, deadline = Prometheus(port), time.monotonic() + 60
        while not found.answers():
            said = (folder / "prometheus.log").read_text()[-3000:]
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.2)
        yield found
    finally:
        process.terminate()
        process.wait(30)
