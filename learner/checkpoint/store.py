"""The checkpoints of a run: written to a temporary folder, flushed, described by a manifest, renamed, and marked COMMITTED last.

A run never resumes from a checkpoint that is not valid (`manifest.verify`), and its newest valid checkpoint is never removed.

    checkpoints/step-000040/{learner/ (its state), model/ (Hugging Face), state.json, manifest.json, COMMITTED}
"""

from __future__ import annotations

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
    check_complete,
    describe,
    flush,
    read_manifest,
    read_state,
    signature,
    verify,
)

log = logging.getLogger(__name__)

_NAME = re.compile(r"step-(\d{6,})")
_WRITING = ".writing-"


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

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = Path(folder), keep
        self._judged: dict[
            Path, tuple[Signature, bool]
        ] = {}  # the files of a folder, and whether they were found valid

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
        check_complete(temporary, manifest)
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1))
        for path in (*(temporary / name for name in (*manifest, MANIFEST)), *_folders(temporary)):
            flush(path)
        _make_way(final)
        temporary.rename(final)
        flush(self.folder)
        (final / COMMITTED).touch()
        for path in (final / COMMITTED, final):
            flush(path)
        self._judged[final] = (signature(final), True)
        self._prune()
        return Checkpoint(final)

    def latest(self) -> Checkpoint | None:
        """The newest valid checkpoint. A committed one that is damaged is skipped and named in the log."""
        for folder in reversed(committed(self.folder)):
            if self._is_valid(folder):
                return Checkpoint(folder)
        return None

    def _prune(self) -> None:
        """Removes every checkpoint that is older than the oldest one to keep, damaged ones and interrupted ones included."""
        num_valid = 0
        for folder in reversed(_numbered(self.folder)):
            if num_valid >= self.keep:
                shutil.rmtree(folder)
                self._judged.pop(folder, None)
            elif self._is_valid(folder):
                num_valid += 1

    def _is_valid(self, folder: Path) -> bool:
        """Hashes are computed again only if a file has changed since."""
        if folder.is_symlink() or not (folder / COMMITTED).is_file():
            return False
        now = signature(folder)
        if folder not in self._judged or self._judged[folder][0] != now:
            self._judged[folder] = (now, _passes(folder))
        return self._judged[folder][1]


def committed(folder: Path) -> list[Path]:
    """The checkpoints in `folder` that say they were committed, by update. Nothing else is known of them. Links are left out."""
    return [path for path in _numbered(folder) if (path / COMMITTED).is_file()]


def update_of(checkpoint: Path) -> int:
    """The number in a checkpoint's name."""
    return int(checkpoint.name.rpartition("-")[2])


def _passes(folder: Path) -> bool:
    try:
        verify(folder)
    except CheckpointError as error:
        log.warning("checkpoint skipped: %s", error)
        return False
    return True


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
