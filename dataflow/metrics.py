"""Metric carriers. Keys are `area/quantity` with the unit in the name (`_s`, `_frac`, `num_`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Metrics:
    """What one part reports about one update: scalars for the log line and histograms for TensorBoard."""

    scalars: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, NDArray[np.float32]] = field(default_factory=dict)  # [values] each

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "histograms", {key: np.asarray(v, np.float32).ravel() for key, v in self.histograms.items()}
        )

    @staticmethod
    def union(parts: Iterable[Metrics]) -> Metrics:
        """One report of several; a key reported twice is a mistake of ours."""
        scalars: dict[str, float] = {}
        histograms: dict[str, NDArray[np.float32]] = {}
        for part in parts:
            twice = (scalars.keys() & part.scalars.keys()) | (histograms.keys() & part.histograms.keys())
            assert not twice, f"metrics reported twice: {sorted(twice)}"
            scalars |= part.scalars
            histograms |= part.histograms
        return Metrics(scalars=scalars, histograms=histograms)
