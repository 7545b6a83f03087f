"""What a run that ends early says: the cause, and how it goes on."""

from __future__ import annotations

from corewarding.dataflow.errors import RunError, origin
from corewarding.launch.report.run_directory import RunDir
from corewarding.learner.checkpoint.store import CheckpointStore


def cause_of(error: Exception) -> str:
    cause = origin(error)
    return str(cause) if isinstance(cause, RunError) else f"{type(cause).__name__}: {cause}"


def remedy(run_dir: RunDir, store: CheckpointStore) -> str:
    saved = store.latest()
    if saved:
        return f"`corewarding resume {run_dir.path}` goes on after update {saved.update}"
    return "no checkpoint was made yet; the same command starts again when the cause is mended"


def collapse_words(cause: str, run_dir: RunDir) -> str:
    return (
        f"{cause}\nlook at {run_dir.samples}; lower train.lr, raise kl.coef or vote.min_share, lower staleness.max, or choose a rule "
        "whose labels come from elsewhere (co_rewarding_i, _ii, _iii)"
    )


def stop_words(reason: str, run_dir: RunDir, store: CheckpointStore) -> tuple[str, str]:
    """Where a run that was asked to end stopped, and how it goes on."""
    saved = store.latest()
    if saved is None:
        return f"{reason} before the first update was saved", "; the same command starts again"
    how = f", which is saved; `corewarding resume {run_dir.path}` goes on, and so does the same command"
    return f"{reason} after update {saved.update}", how
