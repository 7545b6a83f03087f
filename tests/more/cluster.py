"""A Ray cluster with token authentication for tests, and the environment of the commands that use it."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "--data.num-train", "32", "--data.num-heldout", "8", "--rollout.group-size", "4", "--rollout.max-new-tokens", "16",
    "--train.questions-per-update", "4", "--train.updates", "2", "--eval.num-questions", "4", "--eval.every-updates", "0",
    "--rollout.cpus-per-actor", "0.25", "--learner.cpus-per-rank", "0.25",
]  # fmt: skip


def small(**changed: object) -> list[str]:
    """SMALL's words with other values. changed: keys of the configuration, with `__` for the dot; each key stands once."""
    keys = dict(zip(SMALL[::2], SMALL[1::2], strict=True))
    keys |= {f"--{key.replace('__', '.').replace('_', '-')}": str(value) for key, value in changed.items()}
    return [word for pair in keys.items() for word in pair]


def environment(python: str | Path = sys.executable, *, checkout: Path | None = ROOT) -> dict[str, str]:
    """As with `python`'s environment activated. checkout: on PYTHONPATH; None: PYTHONPATH is not set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_") and name != "PYTHONPATH"}
    path = f"{Path(python).parent}{os.pathsep}{kept['PATH']}"
    return kept | {"RAY_AUTH_MODE": "token", "PATH": path} | ({"PYTHONPATH": str(checkout)} if checkout else {})


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ray_folder() -> str:
    """An empty folder for one cluster's sockets and logs, with a short path: clusters beside each other share none."""
    return tempfile.mkdtemp(prefix="ray-of-a-test-", dir="/tmp")


@contextlib.contextmanager
def cluster_of(
    folder: Path,
    env: dict[str, str],
    python: str | Path = sys.executable,
    *,
    resources: str = "{}",
    head_port: int | None = None,
) -> Iterator[str]:
    """Starts a node of two CPUs with `python`; yields the dashboard's address. folder: for its log. resources: custom, as JSON.
    head_port: the one of RAY_ADDRESS; None: a free one."""
    port = free_port()
    ray = [python, "-m", "ray.scripts.scripts"]
    subprocess.run([*ray, "get-auth-token", "--generate"], env=env, check=True, capture_output=True)
    ports = [
        f"--port={head_port or free_port()}",
        f"--dashboard-port={port}",
        f"--dashboard-agent-listen-port={free_port()}",
    ]
    words = ["start", "--head", "--block", *ports, "--num-cpus=2"]  # none is a port that another Ray here may hold
    words += ["--resources", resources, f"--temp-dir={ray_folder()}"]
    log = folder / "log"
    with log.open("w") as out:
        head = subprocess.Popen([*ray, *words], env=env, cwd=folder, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert head.poll() is None, f"ray start ended: {log.read_text()[-2000:]}"
                assert time.monotonic() < deadline, "the dashboard did not come up"
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        head.terminate()
        head.wait(60)
