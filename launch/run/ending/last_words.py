"""What a run that failed says: the cause, and how it goes on."""

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
