"""What a run that ends early says: the cause, and how it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from corewarding.dataflow.errors import RunError, UserError, origin
from corewarding.launch.report.files import write_whole
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


@contextmanager
def failure_kept(run_dir: RunDir) -> Iterator[None]:
    """Writes the message of a run that fails inside the context to failure.txt, from which others see that it failed."""
    try:
        yield
    except (RunError, UserError) as error:
        keep_failure(run_dir, str(error))
        raise


def keep_failure(run_dir: RunDir, message: str) -> None:
    """Writes failure.txt. A full disk or a lost folder, from which a run may have failed, keeps nothing."""
    with suppress(OSError):
        write_whole(run_dir.failure, message + "\n")
