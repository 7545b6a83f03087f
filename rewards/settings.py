"""Keys of votes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from corewarding.dataflow.settings import Settings


class VoteSettings(Settings):
    """How completions elect a pseudo-label."""

    min_share: float = Field(0.0, ge=0, le=1)
    """A vote whose winners / voters is below this abstains; 0 is the paper's."""
    min_voters: int = Field(1, ge=1)
    """A vote of fewer completions with an answer abstains."""
    equivalence: Literal["canonical", "exact"] = "canonical"
    """`canonical`: answers vote by their value. `exact`: by their raw text, as in the authors' code."""
    fallbacks: tuple[Literal["hashes", "phrase"], ...] = ()
    """Where a completion has no box: `hashes` takes what follows the last "####", `phrase` what follows the last "answer is"."""
    units: Literal["drop", "keep"] = "drop"
    """Whether 5 cm votes for 5 (`drop`) or for itself. A percentage is never its number."""


class CollapseSettings(Settings):
    """Alarms for a model that wins its reward without being right. A threshold of None turns its signal off."""

    on_collapse: Literal["warn", "pause", "stop"] = "warn"
    """`warn`: a line in the log. `pause`: the run waits until a person lets it go on. `stop`: it ends, exit code 1. None of them
    writes a checkpoint: the last one is from before."""
    patience: int = Field(3, ge=1)
    """Updates in a row that a signal must be above its threshold."""
    rise: float = Field(0.2, ge=0, le=1)
    """How far a signal must also be above its mean over the first `patience` updates: a base model may truncate much at first."""
    top_answer_frac: float | None = Field(0.4, gt=0, le=1)
    """Mass of the most common answer over different questions; a healthy model gives different questions different answers."""
    no_answer_frac: float | None = Field(0.6, gt=0, le=1)
    """Completions without an answer."""
    truncated_frac: float | None = Field(0.6, gt=0, le=1)
    """Completions cut off at rollout.max_new_tokens."""
    repetition_frac: float | None = Field(0.5, gt=0, le=1)
    """4-grams of a completion that occurred in it before, mean over completions."""
