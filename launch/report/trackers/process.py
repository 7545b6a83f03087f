"""A tracker whose client runs in a process of its own: what it prints, imports, starts or leaves behind stays out of the run.

Each message is a line of JSON on the client's standard input, and the client answers each with an empty line when it is done:
RunFacts first, then reports, the summary last. A client whose input ends, because the run was killed, ends too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from corewarding.dataflow.process import keep_log, last_words
from corewarding.launch.report.trackers.tracker import Client, Report, RunFacts


class TrackerDiedError(Exception):
    """The process of a tracker's client has ended before its time."""


class ClientProcess:
    """A Tracker that hands scalars, configuration and summary to a client in another process."""

    def __init__(self, client: str, run: RunFacts, log: Path) -> None:
        """client: module:Class of a Client. log: of what its process prints."""
        self._run, self._log = run, log
        command = (sys.executable, "-m", "corewarding.launch.report.trackers.process", client, str(log))
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True
        )

    def start(self) -> None:
        self._ask(asdict(self._run) | {"folder": str(self._run.folder)})

    def report(self, report: Report) -> None:
        self._ask({"update": report.update, "scalars": dict(report.scalars)})

    def finish(self, summary: Mapping[str, str | float | None]) -> None:
        self._ask({"summary": dict(summary)})
        self.forsake()

    def forsake(self) -> None:
        """Closes the client's input, as the death of the run's process does, and waits for its end."""
        self._process.communicate()

    def abandon(self) -> None:
        """Ends the client with all that it started."""
        if not self.ended:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def ended(self) -> bool:
        """Whether the client's process has ended."""
        return self._process.poll() is not None

    def _ask(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            answered = self._process.stdout.readline()
        except BrokenPipeError:
            answered = ""
        if not answered:
            code = self._process.wait()
            words = last_words(self._log)[-1:] or [f"exit code {code}"]
            raise TrackerDiedError(f"{words[0]}; more in {self._log}")


def serve(client: str, messages: IO[str], answers: IO[str]) -> None:
    """Makes the client and tells it every message until the summary. client: module:Class."""
    told: Client | None = None
    for line in messages:
        message = json.loads(line)
        if told is None:
            module, _, name = client.partition(":")
            told = getattr(import_module(module), name)(RunFacts(**message | {"folder": Path(message["folder"])}))
        elif "summary" in message:
            told.finish(message["summary"])
        else:
            told.report(Report(update=message["update"], scalars=message["scalars"]))
        answers.write("\n")
        answers.flush()
        if "summary" in message:
            return
    if told is not None:
        told.finish({})  # the run was killed


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w") as own:  # what the client prints goes to the log
        keep_log(Path(sys.argv[2]))
        serve(sys.argv[1], sys.stdin, own)
