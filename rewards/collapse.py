"""Detects reward collapse from label-free metrics of each update.

A model can win a label-free reward without being right: with one answer to every question, without any answer, with text that never
ends or with repetition. Each of these signals is a share in [0, 1]. It raises an alarm if for `patience` updates in a row it exceeds
its threshold, and its value at the start of the run by `rise`. After it has fallen it can raise another alarm. The alarms of healthy
and collapsed runs are in docs/results.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from corewarding.rewards.settings import CollapseSettings

SIGNALS = {
    "top_answer_frac": "vote/top_answer_frac",
    "no_answer_frac": "vote/no_answer_frac",
    "truncated_frac": "length/truncated_frac",
    "repetition_frac": "length/repetition_mean",
}
MEANING = {
    "top_answer_frac": "one answer is given to most questions",
    "no_answer_frac": "most completions hold no answer",
    "truncated_frac": "most completions are cut off at rollout.max_new_tokens",
    "repetition_frac": "completions repeat themselves",
}
NGRAM = 4
FEWEST_QUESTIONS = 8


@dataclass(frozen=True, slots=True)
class Alarm:
    """A signal that exceeded its threshold for `patience` updates."""

    signal: str
    value: float
    threshold: float
    update: int

    def __str__(self) -> str:
        return (
            f"collapse: {MEANING[self.signal]} ({SIGNALS[self.signal]} {self.value:.2f}, collapse.{self.signal} "
            f"{self.threshold:g}, at update {self.update})"
        )


@dataclass(slots=True)
class _State:
    start: list[float] = field(default_factory=list)  # the run's first values
    above: int = 0  # updates in a row
    raised: bool = False


class CollapseAlarm:
    """Must see every update once, in order; a resumed run first replays the earlier updates."""

    def __init__(self, settings: CollapseSettings, *, questions_per_update: int) -> None:
        """With fewer than FEWEST_QUESTIONS in an update, a common answer can be chance: top_answer_frac is ignored."""
        self._settings = settings
        few = questions_per_update < FEWEST_QUESTIONS
        self._states = {
            name: _State()
            for name in SIGNALS
            if getattr(settings, name) is not None and not (few and name == "top_answer_frac")
        }

    @property
    def raised(self) -> tuple[str, ...]:
        """Signals with a raised alarm."""
        return tuple(name for name, state in self._states.items() if state.raised)

    @property
    def thresholds(self) -> dict[str, float]:
        """What each signal that has been seen must exceed now."""
        return {name: self._threshold(name) for name, state in self._states.items() if state.start}

    def seen(self, update: int, scalars: Mapping[str, float]) -> list[Alarm]:
        """Alarms that this update raises."""
        alarms = []
        for name, state in self._states.items():
            value = scalars.get(SIGNALS[name])
            if value is None:
                continue
            if len(state.start) < self._settings.patience:
                state.start.append(value)
            threshold = self._threshold(name)
            state.above = state.above + 1 if value > threshold else 0
            if state.above >= self._settings.patience and not state.raised:
                state.raised = True
                alarms.append(Alarm(name, value, threshold, update))
            state.raised = state.raised and state.above > 0
        return alarms

    def _threshold(self, name: str) -> float:
        start = self._states[name].start
        return float(max(getattr(self._settings, name), sum(start) / len(start) + self._settings.rise))


def repetition(token_ids: NDArray[np.int32]) -> float:
    """Share of the 4-grams of [L] token ids that occurred earlier in them; 0 for fewer than 4 tokens."""
    count = len(token_ids) - NGRAM + 1
    if count < 1:
        return 0.0
    ids = token_ids.astype(np.uint64)
    hashes = np.zeros(count, np.uint64)
    for place in range(NGRAM):  # a polynomial over the window, modulo 2^64
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + ids[place : place + count] + np.uint64(1)
    return 1.0 - len(np.unique(hashes)) / count
