"""Keys of votes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dataflow.settings import Settings


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
