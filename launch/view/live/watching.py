"""The viewer's process of `corewarding train --watch`: serves the page of a run from before its begin until the command ends.

python -m corewarding.launch.view.live.watching, with one line of JSON on its standard input: listener, word, folder, began_s.
"""

from __future__ import annotations

import asyncio
import html
import json
import os
import socket
import sys
import tempfile
import threading
import webbrowser
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

from corewarding.dataflow.errors import UserError
from corewarding.launch.view.live.watch import PAGE, has_display
from corewarding.launch.view.run import ViewedRun
from corewarding.launch.view.server import Server
from corewarding.learner.replay.journal.segments import segments

LOOK_S = 0.5
"""Seconds between two looks for the run's files."""
NICE = 10
"""The run's processes come first."""


def main() -> int:
    os.nice(NICE)
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    order = json.loads(sys.stdin.buffer.readline())
    try:
        asyncio.run(_serve(order))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


async def _serve(order: dict[str, Any]) -> None:
    loop, ends = asyncio.get_running_loop(), asyncio.Event()

    def wait_for_the_command() -> None:
        while os.read(
            sys.stdin.fileno(), 1024
        ):  # a thread that waits in Python's buffer at the end breaks the interpreter's end
            pass
        with suppress(RuntimeError):  # the viewer has failed, and its loop is closed
            loop.call_soon_threadsafe(ends.set)

    threading.Thread(target=wait_for_the_command, daemon=True).start()
    server = Server([], socket.socket(fileno=order["listener"]), word=order["word"])
    await server.start()
    with ExitStack() as stack:
        if has_display():
            page = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="corewarding-watch-"))) / "run.html"
            threading.Thread(target=open_browser, args=(page, server.address + PAGE), daemon=True).start()
        folder = Path(order["folder"])
        while not ends.is_set() and not has_begun(folder, order["began_s"]):
            await _either(ends, LOOK_S)
        if not ends.is_set():
            run = stack.enter_context(closing(ViewedRun(folder, folder / "journal")))
            server.add(run)
            run.start(follow=True)
            await ends.wait()
        await server.close()


def has_begun(folder: Path, began_s: float) -> bool:
    """Whether the run has written to its journal or its metrics since. Earlier ones may be removed before the run begins."""
    found = [*segments(folder / "journal")[-1:], folder / "metrics.jsonl"]
    return any(path.is_file() and path.stat().st_mtime >= began_s for path in found)


def open_browser(page: Path, address: str) -> None:
    """Opens the address through a file that only this user can read: the words of a process are seen by all."""
    page.touch(mode=0o600)
    page.write_text(f'<meta http-equiv="refresh" content="0; url={html.escape(address)}">')
    webbrowser.open(page.as_uri())


async def _either(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


if __name__ == "__main__":
    sys.exit(main())
