"""Settings of votes and of the collapse alarms."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from corewarding.dataflow.settings import Completions, Fraction, Settings, Updates


class VoteSettings(Settings):
    """How completions elect a pseudo-label."""

    min_share: Fraction = Field(0.0, ge=0, le=1)
    """A vote abstains if the winning answer has a smaller fraction of the votes; 0: never, as in the paper."""
    min_voters: Completions = Field(1, ge=1)
    """A vote abstains if fewer completions of the group have an answer."""
    equivalence: Literal["canonical", "exact"] = "canonical"
    """`canonical`: equal values vote together. `exact`: equal texts vote together, as in the authors' code."""
    fallbacks: tuple[Literal["hashes", "phrase"], ...] = ()
    """For completions without a box: `hashes` takes the text after the last "####", `phrase` the text after the last "answer is"."""
    units: Literal["drop", "keep"] = "drop"
    """`drop`: 5 cm and 5% vote for 5. `keep`: for 5 cm and 5%. Rewards, label accuracy and evaluation follow; 5% is never 0.05."""


class CollapseSettings(Settings):
    """Alarms for reward collapse: rewards rise while answers are wrong. A threshold of None turns its signal off."""

    on_collapse: Literal["warn", "pause", "stop"] = "warn"
    """`warn`: log a warning. `pause`: wait until a person resumes the run. `stop`: end with exit code 1. No checkpoint is written, so
    the last one is from before the alarm."""
    patience: Updates = Field(3, ge=1)
    """Updates in a row in which a signal must exceed its threshold before the alarm."""
    rise: Fraction = Field(0.2, ge=0, le=1)
    """Fraction by which a signal must also exceed its mean over the first `patience` updates; base models often truncate at first."""
    top_answer_frac: Fraction | None = Field(0.4, gt=0, le=1)
    """Threshold: fraction of the most common answer over different questions; it is small for a healthy model."""
    no_answer_frac: Fraction | None = Field(0.6, gt=0, le=1)
    """Threshold: fraction of completions without an answer."""
    truncated_frac: Fraction | None = Field(0.6, gt=0, le=1)
    """Threshold: fraction of completions cut off at rollout.max_new_tokens."""
    repetition_frac: Fraction | None = Field(0.5, gt=0, le=1)
    """Threshold: fraction of a completion's 4-grams that occurred earlier in it, mean over completions."""
