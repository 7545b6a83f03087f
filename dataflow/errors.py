"""The errors that end a command: the user's, which name a remedy, and the run's, which name a cause.

`corewarding` prints either as one message, without a traceback: exit code 2 for a UserError, 1 for a RunError.
"""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in the input. The message names the key, the value and the remedy."""


class DataError(UserError):
    """A carrier was built from fields that do not fit together."""


class DataSetError(UserError):
    """A data set that the run cannot use as it is."""


class TemplateError(UserError):
    """A model folder whose tokenizer cannot make or read prompts."""


class RunError(RuntimeError):
    """A part of a run failed. The message names the part and the cause; what was saved before it stays."""


class RunStoppedError(RunError):
    """The run ended itself; the message names the reason and how to go on."""
