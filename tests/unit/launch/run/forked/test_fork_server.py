"""A fork runs a program as Python itself would, only sooner; and nothing hangs or is left when a process of the four is killed."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from corewarding.launch.run.forked import fork_server
from corewarding.launch.run.forked.fork_server import LENT, ForkServer, LentServer, forking, present

PROGRAM = """
import json, os, signal, sys, threading
print(json.dumps({
    "imported": "fractions" in sys.modules, "words": sys.argv[1:],
    "set": os.environ.get("CW_SET"), "unset": os.environ.get("CW_UNSET"),
    "folder": os.getcwd(), "blocked": [int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, [])], "name": __name__,
    "said": sys.stdin.read(), "path": sys.path[0], "thread": threading.current_thread() is threading.main_thread(),
    "children": signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL, "leads": os.getsid(0) == os.getpid(),
    "files": len(os.listdir("/proc/self/fd")), "cores": sorted(os.sched_getaffinity(0)),
    "priority": os.getpriority(os.PRIO_PROCESS, 0), "added": sys.path[1:].index(os.environ["PYTHONPATH"]) >= 0,
}))
print("an error", file=sys.stderr)
sys.exit(7)
"""
SLEEPS = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    monkeypatch.setenv("CW_UNSET", "of the driver")
    server = ForkServer(["fractions", "there_is_no_such_module"])
    yield server
    server.close()


@pytest.fixture
def sleeps(tmp_path: Path) -> Path:
    path = tmp_path / "sleeps.py"
    path.write_text(SLEEPS)
    return path


def started(server: ForkServer, *words: object, **options: object) -> subprocess.Popen[str]:
    line = " ".join(["exec", server.executable, *map(str, words)])
    return subprocess.Popen(
        line,
        shell=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def fork_of(client: subprocess.Popen[str]) -> psutil.Process:
    assert client.stdout is not None
    return psutil.Process(int(client.stdout.readline()))


def ended(process: psutil.Process, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("served", [True, False])
def test_a_fork_runs_a_program_as_python_does(server: ForkServer, tmp_path: Path, served: bool) -> None:
    program, folder = tmp_path / "program.py", tmp_path / "folder"
    program.write_text(PROGRAM)
    folder.mkdir()
    if not served:
        server.close()  # then the client becomes Python itself
    environment = {name: value for name, value in os.environ.items() if name != "CW_UNSET"} | {"CW_SET": "é\udc80"}
    environment["PYTHONPATH"] = str(folder)
    here, priority = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    core = max(here)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # as Ray's processes have it
    try:
        os.sched_setaffinity(0, [core])
        client = started(server, program, "a", "b", env=environment, cwd=folder, preexec_fn=lambda: os.nice(1))
    finally:
        os.sched_setaffinity(0, here)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    said, errors = client.communicate("from standard input", timeout=60)
    assert (client.returncode, errors) == (7, "an error\n")
    answer = json.loads(said)
    assert answer.pop("imported") == answer.pop("leads") == served
    assert answer == {
        "words": ["a", "b"],
        "set": "é\udc80",
        "unset": None,
        "folder": str(folder),
        "blocked": [signal.SIGINT],
        "name": "__main__",
        "said": "from standard input",
        "path": str(tmp_path),
        "thread": True,
        "children": True,
        "files": 4,  # the three, and the folder that is listed
        "cores": [core],
        "priority": priority + 1,
        "added": True,
    }


def test_the_client_ends_as_its_fork_does(server: ForkServer, sleeps: Path) -> None:
    clients = [started(server, sleeps) for _ in range(2)]
    forks = [fork_of(client) for client in clients]
    forks[0].send_signal(signal.SIGTERM)
    assert clients[0].wait(10) == -signal.SIGTERM
    assert forks[1].is_running()
    forks[1].kill()
    assert clients[1].wait(10) == -signal.SIGKILL
    assert all(map(ended, forks))


def test_a_fork_is_killed_when_its_client_is(server: ForkServer, sleeps: Path) -> None:
    client = started(server, sleeps)
    fork = fork_of(client)
    client.kill()
    assert ended(fork)
    assert fork_of(started(server, sleeps)).is_running()  # the server goes on


def test_a_client_that_is_killed_before_it_has_asked_does_no_harm(server: ForkServer, sleeps: Path) -> None:
    early = [started(server, sleeps) for _ in range(3)]
    for client in early:
        client.kill()
    fork = fork_of(started(server, sleeps))
    assert fork.is_running()
    fork.kill()


def test_a_client_waits_while_the_server_imports_and_not_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imports_slowly.py").write_text("import time\ntime.sleep(1.0)\n")
    (tmp_path / "says.py").write_text("import sys\nprint('imports_slowly' in sys.modules)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    servers = [ForkServer(["imports_slowly"]) for _ in range(2)]
    waiting = [started(server, tmp_path / "says.py") for server in servers]
    time.sleep(0.5)
    servers[1].close()
    said = [client.communicate(timeout=60)[0] for client in waiting]
    assert said == ["True\n", "False\n"]
    servers[0].close()


def test_nothing_is_run_for_a_client_that_has_asked_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imports_slowly.py").write_text("import time\ntime.sleep(1.5)\n")
    (tmp_path / "writes.py").write_text(
        "import pathlib, sys\npathlib.Path(sys.argv[1]).touch()\nprint('imports_slowly' in sys.modules)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    server = ForkServer(["imports_slowly"])
    gone = [started(server, tmp_path / "writes.py", tmp_path / f"gone-{number}") for number in range(3)]
    time.sleep(0.7)  # they have asked, and the server still imports
    for client in gone:
        client.kill()
        client.wait()
    here = started(server, tmp_path / "writes.py", tmp_path / "here")
    assert here.communicate(timeout=60)[0] == "True\n"  # by the same server
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".py"} - {"__pycache__"} == {"here"}
    server.close()


def test_forks_go_on_when_the_server_is_ended_and_their_clients_end(server: ForkServer, sleeps: Path) -> None:
    client = started(server, sleeps)
    fork = fork_of(client)
    server.close()
    assert client.wait(10) == 0
    assert fork.is_running()
    assert not ended(fork, within_s=0.3)
    fork.kill()


def test_the_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import os, psutil, time\nfrom corewarding.launch.run.forked.fork_server import ForkServer\nserver = ForkServer(['json'])\n"
        "print(psutil.Process().children()[0].pid, flush=True)\ntime.sleep(60)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    process = fork_of(driver)
    (socket,) = tmp_path.glob("*/*.sock")
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700  # of this user alone
    driver.kill()
    driver.wait()
    assert ended(process)
    assert not list(tmp_path.iterdir())


def test_a_context_in_a_context_keeps_the_server() -> None:
    assert present() is None
    with forking(enabled=False):
        assert present() is None
    with forking():
        outer = present()
        with forking():
            assert present() is outer
        assert present() is outer is not None
    assert present() is None
    assert LENT not in os.environ


def test_a_program_uses_the_server_of_the_process_that_started_it(tmp_path: Path) -> None:
    """With the same Python, while that server lives; and leaves it alone."""
    code = (
        "import os\nfrom corewarding.launch.run.forked.fork_server import LENT, forking, present\n"
        "with forking():\n    print(type(present()).__name__, os.environ[LENT], present().executable)"
    )

    def said(**changes: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | changes, capture_output=True, text=True, check=True
        )
        return done.stdout.split(maxsplit=2)

    with forking():
        server, lent = present(), os.environ[LENT]
        assert server is not None
        assert said() == ["LentServer", lent, server.executable + "\n"]
        assert Path(lent.partition(os.pathsep)[2]).is_socket()  # still there
        assert said(**{LENT: lent.replace(sys.executable, "/usr/bin/another-python")})[0] == "ForkServer"
        assert LentServer.find() == LentServer(server.executable, lent)
    assert said(**{LENT: lent})[0] == "ForkServer"  # it has ended


def test_a_server_that_has_imported_other_code_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep runs for hours, in which somebody may change this package."""
    (tmp_path / "rewards").mkdir()
    module = tmp_path / "rewards" / "voting.py"
    module.write_text("")
    os.utime(module, (0, 0))
    monkeypatch.setattr(fork_server, "PACKAGE", tmp_path)
    with forking():
        assert LentServer.find() is not None
        os.utime(module)
        assert LentServer.find() is None
        os.utime(module, (0, 0))
        assert LentServer.find() is not None
        (tmp_path / "rewards" / ".#voting.py").symlink_to("someone@somewhere.1")  # an editor's lock
        assert LentServer.find() is None
