"""The driver's own log in the run folder: what it says, what its loggers say, and what Ray's C++ parts write to standard error."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from corewarding.dataflow.process import BEGIN, keep_stacks


@contextlib.contextmanager
def driver_log(path: Path, *, enabled: bool) -> Iterator[None]:
    """While the context lasts, file descriptor 2 is `path`; Python's sys.stderr stays where it was. enabled: this process is there
    for the run alone."""
    is_own = sys.stderr is sys.__stderr__  # otherwise somebody else, such as a test, collects it
    if not enabled or not is_own:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    before = sys.stderr
    before.flush()
    shown = os.dup(2)
    with path.open("ab") as file, open(shown, "w", buffering=1, closefd=False) as terminal:
        os.dup2(file.fileno(), 2)
        sys.stderr = terminal
        keep_stacks(2)
        os.write(2, f"{BEGIN} {os.getpid()}\n".encode())
        with _loggers():
            try:
                yield
            finally:
                sys.stderr = before
                os.dup2(shown, 2)
                os.close(shown)


@contextlib.contextmanager
def _loggers() -> Iterator[None]:
    """Everything goes to the log, with its time; warnings to the terminal, too."""
    own = logging.getLogger("corewarding")
    with os.fdopen(os.dup(2), "w", buffering=1) as file:
        to_file, to_terminal = logging.StreamHandler(file), logging.StreamHandler(sys.stderr)
        to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        to_terminal.setLevel(logging.WARNING)
        level = own.level
        own.setLevel(logging.INFO)
        for handler in (to_file, to_terminal):
            own.addHandler(handler)
        try:
            yield
        finally:
            own.setLevel(level)
            for handler in (to_file, to_terminal):
                own.removeHandler(handler)
