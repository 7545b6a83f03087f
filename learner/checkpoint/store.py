"""The checkpoints of a run: written to a temporary folder, flushed, described by a manifest, renamed, and marked COMMITTED last.

A run never resumes from a checkpoint that is not valid (`manifest.verify`), and its newest valid checkpoint is never removed.

    checkpoints/step-000040/{learner/ (its state), model/ (Hugging Face), state.json, manifest.json, COMMITTED}
"""

from __future__ import annotations

import itertools
import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corewarding.learner.checkpoint.manifest import (
    COMMITTED,
    LEARNER,
    MANIFEST,
    STATE,
    CheckpointError,
    Signature,
    check_parts,
    describe,
    flush,
    read_manifest,
    read_object,
    read_state,
    signature,
    verify,
)

log = logging.getLogger(__name__)

_NAME = re.compile(r"step-(\d{6,})")
_WRITING = ".writing-"
SCORES = "scores.json"
"""Beside the checkpoints: the score of each update that was evaluated."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One valid checkpoint."""

    folder: Path

    @property
    def update(self) -> int:
        return update_of(self.folder)

    @property
    def learner(self) -> Path:
        return self.folder / LEARNER

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def state(self) -> dict[str, Any]:
        return read_state(self.folder)

    @property
    def files(self) -> list[str]:
        """The committed files, by their path inside of the folder."""
        return list(read_manifest(self.folder))


class CheckpointStore:
    """The checkpoints of one run. Of the valid ones, the newest `keep` stay."""

    def __init__(self, folder: Path, keep: int, *, keep_best: int = 0) -> None:
        """keep_best: how many of the best by `score` stay beside the newest."""
        self.folder, self.keep, self.keep_best = Path(folder), keep, keep_best
        self._judged: dict[Path, tuple[Signature, str | None]] = {}
        """By folder: its files when it was looked at, and what is wrong with them."""

    def begin(self, update: int) -> Path:
        """Creates an empty temporary folder for the checkpoint after `update`. What an interrupted attempt left is removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(f"{_WRITING}*"):
            _make_way(left)
        temporary = self.folder / f"{_WRITING}{update:06d}"
        temporary.mkdir()
        return temporary

    def commit(self, temporary: Path, state: dict[str, Any]) -> Checkpoint:
        """Makes `temporary` the checkpoint of its update. Then removes checkpoints that are older than the newest `keep` valid ones.

        CheckpointError if it holds no learner state. A valid checkpoint of the same update stays instead.
        """
        final = self.folder / f"step-{temporary.name.removeprefix(_WRITING)}"
        if self._is_valid(final):
            shutil.rmtree(temporary)
            return Checkpoint(final)
        (temporary / STATE).write_text(json.dumps(state, indent=1))
        manifest = describe(temporary)
        check_parts(temporary, manifest)
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1))
        for path in (*(temporary / name for name in (*manifest, MANIFEST)), *_folders(temporary)):
            flush(path)
        _make_way(final)
        temporary.rename(final)
        flush(self.folder)
        (final / COMMITTED).touch()
        for path in (final / COMMITTED, final):
            flush(path)
        self._judged[final] = (signature(final), None)
        self._prune()
        return Checkpoint(final)

    def give_up(self, temporary: Path) -> None:
        """Removes what was written of a checkpoint that is not to be."""
        shutil.rmtree(temporary, ignore_errors=True)

    def score(self, update: int, value: float) -> None:
        """Remembers how good the weights after `update` are, also for later starts; higher is better."""
        if not self.keep_best:
            return
        scores = {**self._scores(), update: value}
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{SCORES}.tmp"
        temporary.write_text(json.dumps(scores))
        temporary.replace(self.folder / SCORES)

    def latest(self) -> Checkpoint | None:
        """The newest valid checkpoint. A committed one that is damaged is skipped and named in the log."""
        for folder in reversed(committed(self.folder)):
            if self._is_valid(folder):
                return Checkpoint(folder)
        return None

    def valid(self) -> list[Checkpoint]:
        """All valid checkpoints, by update."""
        return [Checkpoint(folder) for folder in committed(self.folder) if self._is_valid(folder)]

    def oldest_state(self) -> dict[str, Any]:
        """The state of the oldest valid checkpoint; empty if there is none."""
        return next((checkpoint.state for checkpoint in self.valid()), {})

    @property
    def refused(self) -> list[str]:
        """What is wrong with the committed checkpoints that were looked at and are not valid."""
        return [damage for _, damage in self._judged.values() if damage is not None]

    def _prune(self) -> None:
        """Removes every checkpoint that is older than the oldest one to keep, damaged ones and interrupted ones included."""
        num_valid, best = 0, self._best()
        for folder in reversed(_numbered(self.folder)):
            if num_valid < self.keep:
                num_valid += self._is_valid(folder)
            elif folder not in best:
                shutil.rmtree(folder)
                self._judged.pop(folder, None)

    def _best(self) -> list[Path]:
        """The `keep_best` valid checkpoints with the highest scores; of equal ones the newer."""
        scores = self._scores() if self.keep_best else {}
        scored = [folder for folder in _numbered(self.folder) if update_of(folder) in scores]
        scored.sort(key=lambda folder: (scores[update_of(folder)], update_of(folder)), reverse=True)
        return list(itertools.islice(filter(self._is_valid, scored), self.keep_best))

    def _scores(self) -> dict[int, float]:
        try:
            content = read_object(self.folder / SCORES)
            return {int(update): float(value) for update, value in content.items()}
        except (CheckpointError, ValueError, TypeError):
            return {}  # none yet, or garbled: what was best is forgotten

    def _is_valid(self, folder: Path) -> bool:
        """Hashes are computed again only if a file has changed since."""
        if folder.is_symlink() or not (folder / COMMITTED).is_file():
            return False
        now = signature(folder)
        if folder not in self._judged or self._judged[folder][0] != now:
            self._judged[folder] = (now, _damage(folder))
        return self._judged[folder][1] is None


def committed(folder: Path) -> list[Path]:
    """The checkpoints in `folder` that say they were committed, by update. Nothing else is known of them. Links are left out."""
    return [path for path in _numbered(folder) if (path / COMMITTED).is_file()]


def update_of(checkpoint: Path) -> int:
    """The number in a checkpoint's name."""
    return int(checkpoint.name.rpartition("-")[2])


def _damage(folder: Path) -> str | None:
    try:
        verify(folder)
    except CheckpointError as error:
        log.warning("checkpoint skipped: %s", error)
        return str(error)
    return None


def _numbered(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted((path for path in found if path.is_dir() and not path.is_symlink()), key=update_of)


def _folders(folder: Path) -> list[Path]:
    """`folder` and all folders in it, the inner ones first."""
    return [*sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True), folder]


def _make_way(path: Path) -> None:
    """Frees a name: removes a folder; gives a link or a file, which cannot be ours, another name."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        number = 1
        while (aside := path.with_name(f"{path.name.lstrip('.')}.aside-{number}")).is_symlink() or aside.exists():
            number += 1
        path.rename(aside)
