"""On one machine, a run's processes are forks of one that has imported torch, transformers and our modules: seconds of each start are
spent once, beside the driver's own imports, and what was imported is in memory once. Imports neither torch nor ray.

Not on a cluster, whose nodes start processes of their own, and not for processes with a GPU or another Python. Programs that the
process starts, such as the trials of a sweep, use its server and start none.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import corewarding

MODULES = (
    "torch",
    "torch._dynamo",
    "torch.distributed.tensor",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.auto.modeling_auto",
    "transformers.models.qwen3.modeling_qwen3",
    "google.protobuf.text_format",  # imported by ray, as are the next three
    "jsonschema",
    "requests",
    "pdb",
    "corewarding.learner.learner",
    "corewarding.learner.replay.buffer",
    "corewarding.actors.embedded.engine",
    "corewarding.actors.rollout_actor",
    "corewarding.questions.template",
    "corewarding.rewards.answers.extract",
)
"""What the processes of a run import, without what reads an environment in which they differ, such as ray: a fork that has it does
not report to its raylet."""
LENT = "COREWARDING_FORK_SERVER"
"""Environment variable for the programs that a process with a server starts: its Python and the server's socket."""
PACKAGE = Path(corewarding.__file__).parent
_SOCKET = "fork.sock"


class ForkServer:
    """The process that is forked, and the folder of its socket."""

    def __init__(self, modules: Sequence[str] = MODULES) -> None:
        """modules: imported before anything is forked."""
        self._folder = tempfile.TemporaryDirectory(prefix="cw-fork-")  # of this user alone
        self._socket = Path(self._folder.name) / _SOCKET
        server = Path(__file__).with_name("server.py")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self._socket))
            listener.listen()
            self._process = subprocess.Popen(
                [sys.executable, str(server), str(listener.fileno()), *modules],
                pass_fds=[listener.fileno()],
                env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
                stdin=subprocess.PIPE,  # ends when this process does
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def executable(self) -> str:
        """What runs a Python program in a fork: a command line for a shell, without the program."""
        return _client_of(self._socket)

    @property
    def lent(self) -> str:
        """The value of LENT."""
        return os.pathsep.join([sys.executable, str(self._socket)])

    def close(self) -> None:
        """Ends the server; forks of it go on."""
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()


@dataclass(frozen=True, slots=True)
class LentServer:
    """The server of a process that started this one. Who lends it ends it."""

    executable: str  # as ForkServer's
    lent: str

    @classmethod
    def find(cls) -> LentServer | None:
        """None if there is none any more, none with this Python, or one that has imported other code of ours."""
        lent = os.environ.get(LENT, "")
        python, _, socket_path = lent.partition(os.pathsep)
        if python != sys.executable or not Path(socket_path).is_socket() or _changed_since(Path(socket_path)):
            return None
        return cls(_client_of(Path(socket_path)), lent)

    def close(self) -> None:
        """Does nothing."""


def _changed_since(socket_path: Path) -> bool:
    """Whether a file of this package is newer than the server of this socket, or is being changed now."""
    try:
        began = socket_path.stat().st_mtime
        files = (file for folder in PACKAGE.iterdir() for file in folder.resolve().rglob("*.py"))
        return any(file.lstat().st_mtime > began for file in files)  # an editor's lock may be a link to nothing
    except FileNotFoundError:
        return True


def _client_of(socket_path: Path) -> str:
    client = Path(__file__).with_name("client.py")
    return shlex.join([sys.executable, "-S", "-E", str(client), str(socket_path)])


_present: ForkServer | LentServer | None = None


def present() -> ForkServer | LentServer | None:
    """The server that this process has now, if any."""
    return _present


@contextmanager
def forking(*, enabled: bool = True) -> Iterator[None]:
    """While the context lasts, this process has a server, which it lends. enabled: False changes nothing, nor does a context inside
    another."""
    global _present
    if not enabled or _present is not None:
        yield
        return
    _present = LentServer.find() or ForkServer()
    before = os.environ.get(LENT)
    os.environ[LENT] = _present.lent
    try:
        yield
    finally:
        del os.environ[LENT]
        if before is not None:
            os.environ[LENT] = before
        _present.close()
        _present = None
