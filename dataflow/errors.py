"""Errors that end a command. A UserError names a remedy; a RunError names a cause.

`corewarding` prints either as one message without a traceback. The exit code is 2 for a UserError and 1 for a RunError.
"""

from __future__ import annotations

import re

_RAISED = re.compile(r"(?:[a-z_]\w*\.)*[A-Z]\w*(?:Error|Exception): ")  # at the left edge, as a traceback ends


class UserError(ValueError):
    """A mistake in the input. The message names the key, the value and the remedy."""


class DataError(UserError):
    """The fields of a carrier do not fit together."""


class DataSetError(UserError):
    """The run cannot use this data set as it is."""


class TemplateError(UserError):
    """The tokenizer of a model folder cannot make or read prompts."""


class CursorError(UserError):
    """A saved question cursor does not belong to these questions, or an item that was never asked is given back."""


class RunError(RuntimeError):
    """A part of a run failed. The message names the part and the cause. Checkpoints written before stay valid."""


class RunStoppedError(RunError):
    """The run ended itself. The message names the reason and how to continue."""


class TaskFailedError(RunError):
    """A rollout task raises an error wherever it runs, so the cause is its content or the engine's code, not one process."""


class SignalStop(BaseException):
    """A signal came before a run had begun. No Exception, so that nothing on the way takes it for an error."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


def origin(error: BaseException) -> BaseException:
    """The error as it was raised in another process, out of the wrapping in which Ray delivers it."""
    while isinstance(cause := getattr(error, "cause", None), Exception):
        error = cause
    return error


def reason_of(error: BaseException) -> str:
    """The last exception in Ray's report, with all lines of its message."""
    lines = [line.rstrip() for line in str(error).splitlines() if line.strip()]
    raised = [number for number, line in enumerate(lines) if _RAISED.match(line)]
    return "\n".join(lines[raised[-1] :] if raised else lines[-1:]) or type(error).__name__
