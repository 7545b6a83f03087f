"""What the user is told when data or a tokenizer does not fit: key, value, and what to do about it."""

from __future__ import annotations


class DataSetError(ValueError):
    """A data set that the run cannot use as it is."""


class TemplateError(ValueError):
    """A model folder whose tokenizer cannot make or read prompts."""
