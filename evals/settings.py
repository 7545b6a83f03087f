"""Keys of evaluation before, during and after training."""

from __future__ import annotations

from pydantic import Field

from corewarding.dataflow.settings import Completions, Number, Questions, Settings, Updates


class EvalSettings(Settings):
    """Held-out evaluation."""

    every_updates: Updates = Field(10, ge=0)
    """Updates between two evaluations on the first `quick_questions`; 0: only before and after training."""
    num_questions: Questions = Field(512, ge=1)
    """Held-out questions asked before and after training."""
    quick_questions: Questions = Field(128, ge=1)
    """Held-out questions asked during training."""
    quick_samples: Completions = Field(0, ge=0)
    """Completions per held-out question during training, beside a greedy answer: n of mean@n, by which a sweep that stops early and
    `checkpoint.keep_best` then compare. 0: the greedy answer alone, which may hardly change while mean@n rises."""
    samples: Completions = Field(8, ge=1)
    """Completions per held-out question before and after training: n of mean@n and maj@n."""
    temperature: Number = Field(1.0, gt=0)
    """Sampling temperature of those n completions. A greedy answer is sampled as well."""
