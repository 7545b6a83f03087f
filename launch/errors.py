"""What a user can get wrong: one message, exit code 2, no traceback."""


class UserError(ValueError):
    """Names the key, the value and the remedy."""


class RunStoppedError(RuntimeError):
    """The run ended itself for a reason it can name; what was saved before it stays."""
