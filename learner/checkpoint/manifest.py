"""What makes a checkpoint's folder valid: COMMITTED, a manifest with size and SHA-256 of every file, counters, and learner state.

Nothing found on disk is believed before it is compared. A symbolic link in the place of a file or a folder counts as damage.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from corewarding.dataflow.errors import RunError

COMMITTED, MANIFEST, STATE, LEARNER, INDEX = "COMMITTED", "manifest.json", "state.json", "learner", "learner.json"

Entry: TypeAlias = dict[str, Any]
"""Of one file: `size` in bytes and `sha256` in hexadecimal digits."""
Signature: TypeAlias = tuple[tuple[str, int, int, int], ...]
"""Name, size, inode and time of the last change of every file: equal signatures mean that nobody wrote in between."""


class CheckpointError(RunError):
    """A file of a checkpoint is missing, or is not the one that was committed."""


def describe(folder: Path) -> dict[str, Entry]:
    """The entry of every file below `folder`, by its path inside."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _entry(path) for path in files}


def read_manifest(folder: Path) -> dict[str, Entry]:
    """The entries of manifest.json. CheckpointError if it is missing, garbled, or lists no counters or no learner state."""
    manifest = read_object(folder / MANIFEST)
    for name, entry in manifest.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise CheckpointError(f"{folder / MANIFEST} names {name!r}, which is outside of the checkpoint")
        if not (
            isinstance(entry, dict) and isinstance(entry.get("size"), int) and isinstance(entry.get("sha256"), str)
        ):
            raise CheckpointError(f"{folder / MANIFEST} has no size and hash for {name}")
    check_parts(folder, manifest)
    return manifest


def check_parts(folder: Path, manifest: Mapping[str, Entry]) -> None:
    """CheckpointError if the files are no checkpoint: without counters, without learner state, or with a pickle of it."""
    if STATE not in manifest:
        raise CheckpointError(f"{folder} holds no {STATE}")
    if f"{LEARNER}/.metadata" in manifest:
        raise CheckpointError(
            f"{folder / LEARNER / '.metadata'} is a pickle, which could run code, and is never opened"
        )
    if f"{LEARNER}/{INDEX}" not in manifest:
        raise CheckpointError(f"{folder} holds no learner state: {LEARNER}/{INDEX} is missing")


def read_state(folder: Path) -> dict[str, Any]:
    """The counters of state.json. CheckpointError if it is garbled or of another update than the folder's name says."""
    state = read_object(folder / STATE)
    update = int(folder.name.rpartition("-")[2])
    if state.get("updates") != update:
        raise CheckpointError(f"{folder / STATE} is of update {state.get('updates')!r}, its folder of update {update}")
    return state


def verify(folder: Path) -> None:
    """Raises CheckpointError with the first thing that keeps `folder` from being a valid checkpoint."""
    if not _is_plain(folder, COMMITTED):
        raise CheckpointError(f"{folder} was not committed: it has no file {COMMITTED}")
    for name, expected in read_manifest(folder).items():
        path = folder / name
        if not _is_plain(folder, name):
            raise CheckpointError(f"{path} is missing, or a link")
        if path.stat().st_size != expected["size"] or _entry(path) != expected:
            raise CheckpointError(f"{path} was changed or cut after it was committed")
    read_state(folder)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. CheckpointError if there is none."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path} is cut or garbled") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is cut or garbled")
    return content


def signature(folder: Path) -> Signature:
    """Of the files below `folder`. Reads no content."""
    found = []
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found.append((str(path.relative_to(folder)), status.st_size, status.st_ino, status.st_ctime_ns))
    return tuple(found)


def flush(path: Path) -> None:
    """Returns when the file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_plain(folder: Path, name: str) -> bool:
    """Whether `name` is a file of `folder` that no link leads to."""
    path = folder
    for part in PurePosixPath(name).parts:
        path /= part
        if path.is_symlink():
            return False
    return path.is_file()


def _entry(path: Path) -> Entry:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
