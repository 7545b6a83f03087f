"""What the learner made of each token: its log-probabilities, the importance weight, and whether the token entered the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from corewarding.dataflow.carriers import Completion
from corewarding.dataflow.ids import CompletionId
from corewarding.launch.view.tail import payload_at
from corewarding.learner.replay.journal.segments import JournalError, Position
from corewarding.learner.token_log.entries import (
    CLIPPED,
    IN_LOSS,
    OFF_BAND,
    SEQUENCE_OFF_BAND,
    VETOED,
    TokenValues,
    from_bytes,
    recomputed,
)

if TYPE_CHECKING:
    from corewarding.launch.view.run import ViewedRun

_LEFT_OUT = (
    (VETOED, "left out: a token of its completion is below correction.veto"),
    (SEQUENCE_OFF_BAND, "left out: its completion is outside of correction.sequence_band"),
    (OFF_BAND, "only in the KL term: outside of correction.token_band"),
    (CLIPPED, "trained, but clipped: the reward gives it no gradient"),
)
TRAINED = "trained"


@dataclass(frozen=True, slots=True)
class Noted:
    """A completion's entry in the token log."""

    values: TokenValues
    is_recomputed: bool


def noted(run: ViewedRun, asked: str, made: int | None) -> dict[tuple[CompletionId, int], Noted]:
    """What the token log holds of an asking that `made` trained, by completion and checksum. What the run itself recorded comes before
    what was recomputed."""
    rows = run.db.execute(
        "SELECT folder, segment, offset FROM token_log WHERE asked = ? AND made = ? ORDER BY rowid", (asked, made)
    ).fetchall()
    tokens, found = run.run_dir.tokens, dict[tuple[CompletionId, int], Noted]()
    again = recomputed(tokens).name
    for row in sorted(rows, key=lambda row: not row["folder"].startswith(again)):
        try:
            entry = from_bytes(payload_at(tokens / row["folder"], Position(row["segment"], row["offset"])))
        except JournalError:  # removed since (journal.retain): `missing` says how to get it
            continue
        for one, values in entry.values.items():
            found[one, entry.checksums[one]] = Noted(values, row["folder"].startswith(again))
    return found


def missing(run: ViewedRun, made: int | None, fate: str) -> str | None:
    """Why a completion has no entry, and what gives it one; None for one that the learner never saw."""
    if made is None or fate not in ("trained", "withheld"):
        return None
    return (
        "the learner recorded only a few questions of each update (run.sample_questions), and not this one: "
        f"`corewarding view {run.path} --update {made} --recompute` computes its importance weights"
    )


def learnt(run: ViewedRun, one: Completion, entry: Noted) -> dict[str, Any]:
    """JSON-ready and short. [L] each; None in place of a token that the loss mask leaves out.

    policy, proximal: thousandths by which these log-probabilities are above the sampler's; ratio, weight: ten-thousandths.
    proximal is None where it is the policy's throughout, weight where it is the ratio throughout.
    """
    values = entry.values
    behavior = one.behavior_logprobs.astype(np.float64)
    in_loss = (values.marks & IN_LOSS) > 0

    def same(these: NDArray[Any], those: NDArray[Any]) -> bool:
        return bool((these == those)[in_loss].all())

    is_policy, is_ratio = same(values.proximal, values.policy), same(values.weight, values.ratio)
    return {
        "recomputed": entry.is_recomputed,
        "policy": _whole(1e3 * (values.policy - behavior)),
        "proximal": None if is_policy else _whole(1e3 * (values.proximal - behavior)),
        "ratio": _whole(1e4 * values.ratio.astype(np.float64)) if in_loss.any() else None,
        "weight": None if is_ratio else _whole(1e4 * values.weight.astype(np.float64)),
        "loss": _runs([meaning(run, one, mark) for mark in values.marks.tolist()]),
    }


def meaning(run: ViewedRun, one: Completion, mark: int) -> str:
    """What became of a token with these marks, in words."""
    if not mark & IN_LOSS:
        is_cut = one.truncated and run.facts.masks_truncated
        return "withheld: ended at the token limit (loss.mask_truncated)" if is_cut else "withheld from the loss"
    return next((words for bit, words in _LEFT_OUT if mark & bit), TRAINED)


def _whole(values: NDArray[np.float64]) -> list[int | None]:
    return [int(value) if np.isfinite(value) else None for value in np.rint(values)]


def _runs(words: Sequence[str]) -> list[list[Any]]:
    """[first token, word] of each run of equal words."""
    return [[at, word] for at, word in enumerate(words) if at == 0 or word != words[at - 1]]
