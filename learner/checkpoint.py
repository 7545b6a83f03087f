"""Checkpoints on disk: written to a temporary folder, flushed, described by a manifest, renamed, and then marked COMMITTED.

A run never resumes from a folder without COMMITTED or with files that differ from its manifest.

    checkpoints/step-000040/{learner/ (torch.distributed.checkpoint), model/ (Hugging Face), state.json, manifest.json, COMMITTED}
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corewarding.dataflow.errors import RunError

log = logging.getLogger(__name__)


class CheckpointError(RunError):
    """A file of a checkpoint is missing or differs from the file that was committed."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One committed checkpoint."""

    folder: Path

    @property
    def update(self) -> int:
        return int(self.folder.name.removeprefix("step-"))

    @property
    def learner(self) -> Path:
        return self.folder / "learner"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return state

    def verify(self) -> None:
        """Raises CheckpointError with the first file that is missing or has another size or hash than in the manifest."""
        manifest = json.loads((self.folder / "manifest.json").read_text())
        for name, expected in manifest.items():
            path = self.folder / name
            if not path.is_file():
                raise CheckpointError(f"{path} is missing")
            if _describe(path) != expected:
                raise CheckpointError(f"{path} was changed or cut after it was committed")


class CheckpointStore:
    """The checkpoints of one run. Only the newest `keep` stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = Path(folder), keep

    def begin(self, update: int) -> Path:
        """Creates an empty temporary folder for the checkpoint after `update`. Files of an interrupted attempt are removed."""
        temporary = self.folder / f".writing-{update:06d}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        return temporary

    def commit(self, temporary: Path, state: dict[str, Any]) -> Checkpoint:
        """Makes `temporary` the checkpoint of its update. Then removes checkpoints beyond the newest `keep`."""
        (temporary / "state.json").write_text(json.dumps(state, indent=1))
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        manifest = {str(path.relative_to(temporary)): _describe(path) for path in files}
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1))
        for path in [*files, temporary / "manifest.json", *(p for p in temporary.rglob("*") if p.is_dir()), temporary]:
            _flush(path)
        final = self.folder / f"step-{temporary.name.removeprefix('.writing-')}"
        if final.exists():  # an uncommitted or damaged one of the same update
            shutil.rmtree(final)
        temporary.rename(final)
        (final / "COMMITTED").touch()
        for path in (final / "COMMITTED", final, self.folder):
            _flush(path)
        for old in self._committed()[: -self.keep]:
            shutil.rmtree(old)
        return Checkpoint(final)

    def latest(self) -> Checkpoint | None:
        """The newest committed and undamaged checkpoint. Damaged ones are logged and skipped."""
        for folder in reversed(self._committed()):
            checkpoint = Checkpoint(folder)
            try:
                checkpoint.verify()
            except CheckpointError as error:
                log.warning("checkpoint skipped: %s", error)
                continue
            return checkpoint
        return None

    def _committed(self) -> list[Path]:
        return sorted(path.parent for path in self.folder.glob("step-*/COMMITTED"))


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
