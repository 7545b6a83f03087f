"""The base of every settings class: frozen, refuses unknown keys, and the text under a field documents it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen group of configuration keys. Each part defines its own; launch/config/tree.py nests them."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )
