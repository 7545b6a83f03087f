"""One process at a time writes into a run's folder: a lock on a file in it, which the system releases however its holder ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from corewarding.dataflow.errors import UserError
from corewarding.dataflow.spans import now_s

FILE = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class RunLockedError(UserError):
    """Another run writes into this folder."""


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Holds the folder, which is made if need be. RunLockedError, at once, names the process that holds it.

    A folder that holds nothing but the lock in the end is removed, with the folders above that were made for it. A file system
    without locks is named, and the run goes on.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    handle = _locked(folder / FILE)
    try:
        yield
    finally:
        with suppress(OSError):  # a person removed the folder, or another process came in between
            if [path.name for path in folder.iterdir()] == [FILE]:
                (folder / FILE).unlink()
                for empty in made or [folder]:
                    empty.rmdir()
        os.close(handle)


def refuse_locked(folder: Path) -> None:
    """RunLockedError if a process holds the folder now. Makes no file."""
    try:
        handle = os.open(folder / FILE, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunLockedError(_refusal(folder, os.pread(handle, 1000, 0))) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    finally:
        os.close(handle)


def _locked(path: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 1000, 0)
            os.close(handle)
            raise RunLockedError(_refusal(path.parent, holder)) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(handle)
                raise
            print(
                f"warning: the file system of {path.parent} has no locks (flock: {error.strerror}), so a second run of this name "
                "would not be noticed; mount it with locks, or set run.root to another one",
                file=sys.stderr,
            )
        if _is_at(handle, path):
            holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since_s": now_s()}).encode()
            os.ftruncate(handle, 0)
            os.pwrite(handle, holder, 0)
            return handle
        os.close(handle)  # its holder removed the file when it ended


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _refusal(folder: Path, content: bytes) -> str:
    try:
        holder: Any = json.loads(content)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since_s"]))
        who = f"process {int(holder['pid'])} on {holder['host']} (since {since})"
    except (ValueError, TypeError, KeyError):
        who = "another process"
    return f"{folder} is in use by {who}; wait for its end, stop it, or choose another run.name"
