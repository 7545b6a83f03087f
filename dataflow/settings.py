"""The base of every settings class: frozen, refuses unknown keys, and the text under a field documents it.

A number is annotated with what it counts or measures (`Tokens`, `Seconds`, ...). docs/configuration.md shows the unit, and the text
under the field names it too, because `--help` shows the text alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """A frozen group of configuration keys. Each part defines its own; launch/config/tree.py nests them."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number counts or measures."""

    name: str


Number = Annotated[float, Unit("")]  # a factor, a coefficient: no unit
Whole = Annotated[int, Unit("")]
Fraction = Annotated[float, Unit("fraction")]
Seconds = Annotated[float, Unit("seconds")]
Mebibytes = Annotated[float, Unit("MiB")]
Tokens = Annotated[int, Unit("tokens")]
Completions = Annotated[int, Unit("completions")]
Questions = Annotated[int, Unit("questions")]
Updates = Annotated[int, Unit("updates")]
CPUs = Annotated[float, Unit("CPUs")]
GPUs = Annotated[float, Unit("GPUs")]
Threads = Annotated[int, Unit("threads")]
Processes = Annotated[int, Unit("processes")]

Share = Annotated[float, Field(ge=0, lt=1)]
Core = Annotated[int, Field(ge=0)]  # a CPU core, by number
Amount = Annotated[float, Field(gt=0)]  # of one of Ray's resources
