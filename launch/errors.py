"""What a user can get wrong: one message, exit code 2, no traceback."""


class UserError(ValueError):
    """Names the key, the value and the remedy."""
