"""Imports what every actor needs, once, and forks a process for each connection. Run as a file: it imports nothing of ours.

    python server.py SOCKET MODULE ...

SOCKET is the number of an inherited socket that listens, in a folder of its own. Standard input is a pipe from the driver: the server
ends when the driver does, and removes the folder; its children go on. A connection (client.py) brings a program's words, environment,
folder, cores, priority, blocked signals and three standard files, and gets the number of the child that runs it, and its exit status
when it has ended. If the connection is closed before that, the child is killed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import sys
from typing import Any

LENGTH = 8
"""Bytes in which a request's length is sent, before it."""
READ_S = 5.0
"""How long a client may take to say what it asks for."""


def main() -> None:
    listener = socket.socket(fileno=int(sys.argv[1]))
    gc.disable()  # nothing of what is imported is garbage
    for name in sys.argv[2:]:
        with contextlib.suppress(ImportError):  # the program imports it itself, and says what is missing
            importlib.import_module(name)
    gc.enable()
    gc.freeze()  # also keeps the pages shared
    request = serve(listener)
    if request is not None:
        become(*request)


def serve(listener: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Forks children until the driver ends. In a child: what its client asks for. In the server: None."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, socket.socket] = {}
    selector = selectors.DefaultSelector()
    for source in (listener, woken, sys.stdin):
        selector.register(source, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                shutil.rmtree(os.path.dirname(listener.getsockname()), ignore_errors=True)
                return None
            if key.fileobj is listener:
                connection, _ = listener.accept()
                request = _read(connection)
                if request is None:
                    continue
                child = os.fork()
                if child == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    selector.close()
                    for own in (listener, connection, *children.values()):
                        own.close()
                    os.close(woken)
                    os.close(wake)
                    return request
                for file in request[1]:
                    os.close(file)
                children[child] = connection
                selector.register(connection, selectors.EVENT_READ, child)
                with contextlib.suppress(OSError):  # it ends just now, which is seen below
                    connection.sendall(child.to_bytes(LENGTH, "little"))
            elif key.fileobj == woken:
                os.read(woken, 4096)
                _reap(children, selector)
            elif key.data in children:  # its client has ended: somebody wants the child to end
                selector.unregister(key.fileobj)
                os.kill(key.data, signal.SIGKILL)


def _read(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """What a client asks for, and its standard files; None if it has ended, or has waited too long and runs the program itself."""
    connection.settimeout(READ_S)
    files: list[int] = []
    try:
        first, files, _, _ = socket.recv_fds(connection, LENGTH, 3)
        length, message = int.from_bytes(first, "little"), bytearray()
        while len(message) < length and (part := connection.recv(length - len(message))):
            message += part
        whole = 0 < length == len(message) and _waits(connection)
    except OSError:
        whole = False
    if whole:
        return json.loads(message), files
    for file in files:
        os.close(file)
    connection.close()
    return None


def _waits(connection: socket.socket) -> bool:
    """Whether the client is still there: it sends nothing more, so there is something to read only when it has ended."""
    connection.setblocking(False)
    try:
        return bool(connection.recv(1))
    except BlockingIOError:
        connection.setblocking(True)
        return True


def _reap(children: dict[int, socket.socket], selector: selectors.BaseSelector) -> None:
    """Tells the clients of the children that have ended."""
    while children:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        connection = children.pop(child)
        with contextlib.suppress(KeyError):
            selector.unregister(connection)
        with contextlib.suppress(OSError):
            connection.sendall(status.to_bytes(LENGTH, "little"))
        connection.close()


def become(asked: dict[str, Any], files: list[int]) -> None:
    """Runs the program that a client asks for, as Python would have started it."""
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    os.sched_setaffinity(0, asked["cores"])
    with contextlib.suppress(PermissionError):  # the server has the lower priority, and may not raise it
        os.setpriority(os.PRIO_PROCESS, 0, asked["priority"])
    signal.pthread_sigmask(signal.SIG_SETMASK, asked["blocked"])
    sys.argv = asked["words"]
    added = [one for one in asked["environment"].get("PYTHONPATH", "").split(os.pathsep) if one and one not in sys.path]
    sys.path[:1] = [os.path.dirname(os.path.abspath(sys.argv[0])), *added]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
