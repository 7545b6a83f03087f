"""Two runs at the same time, a core each, so that whatever slows the machine slows both: what one of them does more is what it costs.

Pairs of runs one after the other cannot see 3%: on shared machines the same run differs by 10 to 20% from one time to the next.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from corewarding.dataflow.spans import now_s

STARTED = 3
"""Updates after which a run goes at its own speed."""
START_S = 300.0
STEADY = ["--train.updates", "100000", "--train.lr", "1e-12", "--eval.num-questions", "4", "--eval.every-updates", "0"]
"""A run that goes on, and whose completions keep their lengths."""
MARK = "COREWARDING_SIDE"


class Side:
    """A run of configs/cpu.yaml with more words, whose processes all keep to one core."""

    def __init__(self, root: Path, name: str, words: Sequence[str]) -> None:
        self.place = root / name
        self.place.mkdir()
        self._log = (self.place / "log").open("w")
        run = ["train", "cpu", "--run.root", str(root / "runs"), "--run.name", name, *STEADY, *words]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "corewarding.launch.cli", *run],
            cwd=self.place,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), MARK: str(self.place)},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._metrics = root / "runs" / name / "metrics.jsonl"

    def updates(self) -> list[float]:
        """When each update was done."""
        lines = self._metrics.read_text().splitlines(keepends=True) if self._metrics.is_file() else []
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        return [row["time_s"] for row in rows if row["kind"] == "update"]

    def waits(self) -> None:
        deadline = time.monotonic() + START_S
        while len(self.updates()) < STARTED:
            self.is_alive()
            assert time.monotonic() < deadline, f"no update in {START_S:g} s: {self.place / 'log'}"
            time.sleep(0.5)

    def is_alive(self) -> None:
        assert self.process.poll() is None, (self.place / "log").read_text()[-3000:]

    def keep_to(self, core: int) -> None:
        """Every thread of every process of the run."""
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                marked = f"{MARK}={self.place}".encode() in (folder / "environ").read_bytes()
                if marked or Path(os.readlink(folder / "cwd")) == self.place:  # a title may cover the environment
                    for task in (folder / "task").iterdir():
                        with suppress(OSError):
                            os.sched_setaffinity(int(task.name), {core})

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(120)
        self.process.kill()
        self._log.close()


def made(updates: Sequence[float], moment: float) -> float:
    """Updates that were done at a moment, the one under way in parts."""
    at = bisect_right(updates, moment)
    assert 0 < at < len(updates), "the moment lies between two updates"
    before, after = updates[at - 1], updates[at]
    return at + (moment - before) / (after - before)


@contextmanager
def sides(words: Mapping[str, Sequence[str]]) -> Iterator[list[Side]]:
    root = Path(tempfile.mkdtemp(prefix="sides-"))
    with ExitStack() as stack:
        found = []
        for name, more in words.items():
            found.append(Side(root, name, more))
            stack.callback(found[-1].close)
        yield found


def ratios(words: Mapping[str, Sequence[str]], *, windows: int, window_s: float) -> list[float]:
    """Updates of the first run for one of the second, in each window; the cores are exchanged in the middle of a window."""
    edges: list[list[float]] = []
    with sides(words) as found:
        for core, side in enumerate(found):
            side.keep_to(core)
            side.waits()
        for _ in range(windows):
            moments = [now_s()]
            for swapped in (False, True):
                for core, side in enumerate(found):
                    side.is_alive()
                    side.keep_to(core ^ swapped)
                time.sleep(window_s / 2)
                moments.append(now_s())
            edges.append(moments)
            print(".", end="", file=sys.stderr, flush=True)
        time.sleep(max(4 * window_s / 10, 15))  # until the updates under way are done
        times = [side.updates() for side in found]
    done = [[[made(one, moment) for moment in moments] for moments in edges] for one in times]
    return [(mine[-1] - mine[0]) / (other[-1] - other[0]) for mine, other in zip(*done, strict=True)]


def report(what: str, found: Sequence[float], bar: float) -> None:
    """Prints every ratio, their median, and whether it reaches the bar."""
    median = statistics.median(found)
    print(" ".join(f"{one:.3f}" for one in found))
    verdict = "holds" if median >= bar else "is missed"
    print(f"{what}: median of {len(found)} ratios {median:.3f}; the bar of {bar} {verdict}")
