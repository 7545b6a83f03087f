"""A run of the command in the background, looked at and hurt from outside. For tests and benchmarks.chaos."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.more.cluster import environment, small

MARK = "CW_TEST_RUN"
"""Environment variable by which processes of a run are found, however they came to be, beside their working folder."""
PATIENCE_S = 240


class Run:
    """`corewarding train cpu` in the background, made small."""

    def __init__(self, root: Path, **keys: object) -> None:
        """keys: of the configuration, with `__` for the dot."""
        words = small(**{"run__watchdog_s": 15, "run__name": "f"} | keys)
        self.mark = uuid.uuid4().hex
        self.folder, self.log = root / "runs" / "f", root / "log"
        self.place = root.resolve() / f"start-{self.mark[:8]}"
        """The working folder of its processes, and of no others."""
        self.place.mkdir()
        with self.log.open("ab") as out:
            self.driver = subprocess.Popen(
                [
                    *(sys.executable, "-m", "corewarding.launch.cli", "train", "cpu", "--run.root", str(root / "runs")),
                    *words,
                ],
                env=environment() | {MARK: self.mark},
                cwd=self.place,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def pids(self, title: str = "") -> list[int]:
        """Processes of this run whose command line has `title`, without the driver."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                marked = f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes()
                placed = Path(os.readlink(folder / "cwd")) == self.place
                if not (marked or placed):  # a title may be written over the environment
                    continue
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (OSError, ValueError):
                continue
            if command and title in command and int(folder.name) != self.driver.pid:
                found.append(int(folder.name))
        return found

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def updates(self) -> list[int]:
        """The updates in metrics.jsonl, in order."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        return [row["update"] for row in rows if row["kind"] == "update"]

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.driver.poll() is None, self.text()[-3000:]
            assert time.monotonic() < deadline, self.text()[-3000:]
            time.sleep(0.05)

    def reaches(self, num_updates: int) -> None:
        """Returns when so many updates are in metrics.jsonl."""
        self.until(lambda: len(self.updates()) >= num_updates)

    def send(self, number: int, title: str) -> None:
        """Signals the run's processes of this title."""
        self.until(lambda: self.pids(title))
        for pid in self.pids(title):
            os.kill(pid, number)

    def ends(self, code: int, *words: str, within_s: float = PATIENCE_S) -> None:
        """The driver ends with this exit code, says these words and no traceback, and nothing of the run is left."""
        assert self.driver.wait(within_s) == code, self.text()[-3000:]
        for word in words:
            assert word in self.text(), self.text()[-3000:]
        assert "Traceback" not in self.text(), self.text()[-5000:]
        deadline = time.monotonic() + 30
        while self.pids():
            assert time.monotonic() < deadline, [Path(f"/proc/{pid}/cmdline").read_text() for pid in self.pids()]
            time.sleep(0.2)


@contextmanager
def started(root: Path, **keys: object) -> Iterator[Run]:
    run = Run(root, **keys)
    try:
        yield run
    finally:
        for pid in [*run.pids(), *([run.driver.pid] if run.driver.poll() is None else [])]:
            os.kill(pid, signal.SIGKILL)
