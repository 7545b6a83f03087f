"""Errors that follow from the one that ends a run: tasks that nobody awaits any more fail for the same cause."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ray.exceptions import RayError

from corewarding.dataflow.errors import RunError, UserError

log = logging.getLogger(__name__)


def keep_off_the_terminal() -> None:
    """From now on, such an error goes to the driver's log, and the terminal shows no traceback beside the run's one message.

    Errors that a run does not expect are printed as before. Called within the run's event loop.
    """
    asyncio.get_running_loop().set_exception_handler(_handle)


def _handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if "future" in context and isinstance(error, RunError | UserError | RayError | OSError):
        log.info("nobody awaited %s: %s", context["future"], error)
    else:
        loop.default_exception_handler(context)
