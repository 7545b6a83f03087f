"""`corewarding train --watch`: the viewer beside a run, in a process of its own that ends with the command.

The command listens before the viewer has started, so its address is known at once. The viewer's standard input is a pipe from the
command: it brings the word of the address, which no list of processes may show, and it ends when the command ends, however that is.
Nothing waits for the viewer, and nothing of it can end the run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from corewarding.dataflow.errors import UserError
from corewarding.dataflow.spans import now_s
from corewarding.launch.report.plain import say
from corewarding.launch.view.loopback import address_of, listening, new_word

END_S = 5.0
"""How long the viewer has to end after the run."""
PAGE = "#page=run"


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Serves the page of the run in `folder`, which need not be there yet, and says where. A viewer that fails is named at the end."""
    with tempfile.TemporaryFile() as words:
        process = _started(folder, words)
        try:
            yield
        finally:
            if process is not None:
                _end(process, words)


def _started(folder: Path, words: IO[bytes]) -> subprocess.Popen[bytes] | None:
    try:
        listener, word = listening(0), new_word()
        with listener:
            listener.listen()
            address = address_of(listener.getsockname()[1], word)
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "corewarding.launch.view.live.watching"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=words,
                pass_fds=[listener.fileno()],
                start_new_session=True,  # Ctrl-C is for the run, which goes on for a while
            )
            order = {"listener": listener.fileno(), "word": word, "folder": str(folder.resolve()), "began_s": now_s()}
            assert process.stdin is not None
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
    except (OSError, UserError) as error:
        say(f"note: --watch: the viewer does not start, and the run goes on without it: {error}", error=True)
        return None
    say(f"watch the run: {address}{PAGE}")
    return process


def _end(process: subprocess.Popen[bytes], words: IO[bytes]) -> None:
    with suppress(OSError):
        assert process.stdin is not None
        process.stdin.close()
    try:
        code, killed = process.wait(END_S), False
    except subprocess.TimeoutExpired:  # one that has failed has said why, and only ends slowly
        code, killed = 0, True
        process.kill()
        process.wait()
    words.seek(0)
    last = words.read().decode(errors="replace").strip().splitlines()
    if code or (killed and last):
        why = last[-1] if last else f"exit code {code}"
        say(f"note: --watch: the viewer ended before the run: {why}; `corewarding view` shows the run", error=True)


def has_display() -> bool:
    """Whether a browser would have a window here."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
