"""Errors that follow from the one that ends a run: forgotten tasks and threads of libraries fail for its cause, too."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

from ray.exceptions import RayError

from corewarding.dataflow.errors import RunError, UserError

log = logging.getLogger(__name__)
EXPECTED = (RunError, UserError, RayError, OSError)


@contextlib.contextmanager
def kept_off_the_terminal() -> Iterator[None]:
    """Such an error goes to the driver's log, and the terminal shows no traceback beside the run's one message.

    Errors that a run does not expect are printed as before. Called within the run's event loop, where it stays in force: a task is
    found to be forgotten late.
    """
    asyncio.get_running_loop().set_exception_handler(_of_task)
    before, threading.excepthook = threading.excepthook, _of_thread
    try:
        yield
    finally:
        threading.excepthook = before


def _of_task(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if "future" in context and isinstance(error, EXPECTED):
        log.info("nobody awaited %s: %s", context["future"], error)
    else:
        loop.default_exception_handler(context)


def _of_thread(failed: threading.ExceptHookArgs) -> None:
    if isinstance(failed.exc_value, EXPECTED):  # of TensorBoard's writer on a full disk
        log.info("thread %s ended: %s", failed.thread and failed.thread.name, failed.exc_value)
    else:
        threading.__excepthook__(failed)
