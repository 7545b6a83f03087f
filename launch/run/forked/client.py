"""What Ray starts in place of Python: has the server fork a process that runs the same words, and ends as that one does. Run as a
file, with the standard library alone.

    python -S -E client.py SOCKET SCRIPT WORD ...

Where no server answers at SOCKET in time, this process becomes Python itself and runs the words.
"""

import json
import os
import signal
import socket
import sys

LENGTH = 8  # as in server.py, which this file does not import: it starts for every actor


PATIENCE_S = 30.0
"""How long a server may still be importing: Ray gives a process up that has not reported after a minute."""


def main() -> None:
    path, words = sys.argv[1], sys.argv[2:]
    asked = {
        "words": words,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "cores": sorted(os.sched_getaffinity(0)),
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "blocked": [int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    }
    message = json.dumps(asked).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE_S)
    try:
        connection.connect(path)
        socket.send_fds(connection, [len(message).to_bytes(LENGTH, "little")], [0, 1, 2])
        connection.sendall(message)
        forked = connection.recv(LENGTH)
    except OSError:
        forked = b""
    if not forked:
        os.execv(sys.executable, [sys.executable, *words])
    connection.settimeout(None)
    status = int.from_bytes(connection.recv(LENGTH), "little")  # 0 where the server has ended and the child goes on
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
