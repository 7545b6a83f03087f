"""Base of every settings class: frozen, strict about unknown keys, each field documented by the text under it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen group of configuration keys. Parts define their own; launch/config/tree.py nests them."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )
