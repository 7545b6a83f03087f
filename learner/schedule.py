"""The learning rate of each update."""

from __future__ import annotations

import math

from corewarding.learner.settings import TrainSettings


def learning_rate(update: int, settings: TrainSettings) -> float:
    """The rate of update 1, 2, ...: linear warm-up, then constant or a cosine to zero."""
    warmup, step = math.ceil(settings.warmup_frac * settings.updates), update - 1
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.lr
    return settings.lr / 2 * (1 + math.cos(math.pi * (step - warmup) / max(1, settings.updates - warmup)))
