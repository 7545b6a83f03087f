"""Keys of evaluation before, during and after training."""

from __future__ import annotations

from pydantic import Field

from corewarding.dataflow.settings import Settings


class EvalSettings(Settings):
    """Held-out evaluation."""

    every_updates: int = Field(10, ge=0)
    """Updates between two evaluations on the first `quick_questions`, greedy; 0: only before and after training."""
    num_questions: int = Field(512, ge=1)
    """Held-out questions asked before and after training."""
    quick_questions: int = Field(128, ge=1)
    """Held-out questions asked during training."""
    samples: int = Field(8, ge=1)
    """n of mean@n and maj@n, before and after training."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature of those n samples. A greedy answer is sampled as well."""
