"""`corewarding doctor`: is this machine fit for a run? Every fault has its remedy; nothing is started but two Pythons that import.

A check is a function that yields findings. `fail` keeps a run from working, `warn` costs speed or waits to happen, `ok` is for the
record.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from corewarding.actors.engines import ENGINES

Status = Literal["ok", "warn", "fail"]
GB = 2**30
TORCH_FROM, TORCH_BELOW = (2, 11), (2, 15)
IMPORT_S = 180.0
_STYLE: dict[Status, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    what: str
    status: Status
    found: str
    remedy: str = ""


def doctor(*, vllm_python: str | None, sglang_python: str | None, root: str) -> int:
    """Prints the report; 1 where something fails."""
    findings = [
        *python_and_torch(),
        *gpus(),
        *ray_setup(os.environ),
        *engine("vllm", vllm_python or _environment_beside("vllm")),
        *engine("sglang", sglang_python or _environment_beside("sglang")),
        *ports(),
        *space("/dev/shm", 2 * GB, "Ray's object store lives there: mount it larger (docker run --shm-size 8g)"),
        *space(root, 10 * GB, "checkpoints and samples go there: point --run.root at a larger disk"),
        *space(
            os.environ.get("RAY_TMPDIR", "/tmp"), 5 * GB, "Ray's sessions and spilled objects go there: set RAY_TMPDIR"
        ),
        *network(os.environ),
        *threads_and_files(os.environ),
    ]
    table = Table("", "what", "found", "remedy", box=None, pad_edge=False)
    for finding in findings:
        style = _STYLE[finding.status]
        table.add_row(f"[{style}]{finding.status}[/{style}]", finding.what, finding.found, finding.remedy)
    Console(soft_wrap=True).print(table)
    failed = sum(finding.status == "fail" for finding in findings)
    warned = sum(finding.status == "warn" for finding in findings)
    print(f"\n{len(findings)} checks: {failed} failed, {warned} to look at")
    return 1 if failed else 0


def python_and_torch() -> Iterator[Finding]:
    version = sys.version_info
    yield Finding(
        "Python", "ok" if version >= (3, 11) else "fail", f"{version.major}.{version.minor} at {sys.executable}", ""
    )
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", "fail", str(error), "pip install torch (first, from the index that fits your machine)")
        return
    number = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    fits = TORCH_FROM <= number < TORCH_BELOW
    yield Finding(
        "torch", "ok" if fits else "fail", torch.__version__, "" if fits else "corewarding supports 2.11 to 2.14"
    )


def gpus() -> Iterator[Finding]:
    import torch

    answer = _output(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"], 20)
    cards = answer.splitlines() if answer is not None else []
    if not cards:
        yield Finding("GPU", "ok", "none: runs use the CPU", "")
    elif not torch.cuda.is_available():
        remedy = (
            "install the CUDA build of torch that fits the driver"
            if torch.version.cuda is None
            else "update the driver"
        )
        if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
            remedy = "CUDA_VISIBLE_DEVICES is empty: unset it"
        yield Finding("GPU", "fail", f"{len(cards)} x {cards[0]}, unseen by torch {torch.__version__}", remedy)
    else:
        yield Finding("GPU", "ok", f"{torch.cuda.device_count()} x {cards[0]}, CUDA {torch.version.cuda}", "")
        if not torch.distributed.is_nccl_available():
            yield Finding("NCCL", "warn", "not in this torch", "publish.backend: gloo works, more slowly")


def ray_setup(environment: os._Environ[str] | dict[str, str]) -> Iterator[Finding]:
    version = importlib.metadata.version("ray")
    yield Finding("Ray", "ok", version, "")
    token = Path(environment.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    if environment.get("RAY_AUTH_MODE") == "token" and not token.exists() and "RAY_AUTH_TOKEN" not in environment:
        yield Finding(
            "Ray token", "fail", f"RAY_AUTH_MODE is token, but there is no {token}", "ray get-auth-token --generate"
        )
    address = environment.get("RAY_ADDRESS")
    if address:
        host, _, port = address.removeprefix("http://").removeprefix("ray://").partition(":")
        reached = _reaches(host, int(port or 6379))
        remedy = "" if reached else "start the cluster, or unset RAY_ADDRESS: a run then starts Ray for itself"
        yield Finding("RAY_ADDRESS", "ok" if reached else "fail", address, remedy)


def engine(kind: Literal["vllm", "sglang"], python: str | None) -> Iterator[Finding]:
    """Whether `python`, or else this one, imports it."""
    where = f" by {python}" if python else ""
    if python is None and importlib.util.find_spec(kind) is None:
        yield Finding(
            kind,
            "ok",
            "not installed",
            f"only for engine.kind {kind}: make engines, or pip install corewarding[{kind}]",
        )
        return
    code = f"import {kind}, torch; print({kind}.__version__, torch.__version__)"
    answer = _output([python or sys.executable, "-c", code], IMPORT_S, last=True)
    if answer is None:
        remedy = f"run {python or sys.executable} -c 'import {kind}' and mend what it says, or make engines again"
        yield Finding(kind, "fail", f"cannot be imported{where}", remedy)
        return
    version, torch_version = answer.split()
    known = ENGINES[kind].tested
    tested = version in known
    remedy = (
        "" if tested else f"tested with {', '.join(known)}; make test-engines says whether this one keeps its promises"
    )
    yield Finding(kind, "ok" if tested else "warn", f"{version}, torch {torch_version}{where}", remedy)


def ports() -> Iterator[Finding]:
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            free = _reaches("127.0.0.1", listener.getsockname()[1])
    except OSError:
        free = False
    remedy = "" if free else "engines, stores and servers meet there: allow local connections (firewall, sandbox)"
    yield Finding(
        "loopback ports", "ok" if free else "fail", "can be opened and reached" if free else "refused", remedy
    )
    taken = [port for port in (6379, 8265) if _reaches("127.0.0.1", port)]
    if taken:
        yield Finding(
            "Ray's ports",
            "warn",
            f"{taken} answer already",
            "a Ray runs here: `ray status`; runs join it by RAY_ADDRESS=auto",
        )


def space(path: str, wanted: int, remedy: str) -> Iterator[Finding]:
    """Free bytes of the file system that `path` is, or will be, on."""
    existing = Path(path).absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    enough, writable = free >= wanted, os.access(existing, os.W_OK)
    found = f"{free / GB:.1f} GB free" + ("" if writable else ", not writable")
    status: Status = "fail" if not writable else "ok" if enough else "warn"
    yield Finding(path, status, found, "" if status == "ok" else remedy)


def network(environment: os._Environ[str] | dict[str, str]) -> Iterator[Finding]:
    names = [name for _, name in socket.if_nameindex()]
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME"):
        value = environment.get(variable)
        wanted = [part.lstrip("=") for part in value.split(",")] if value and not value.startswith("^") else []
        absent = [part for part in wanted if not any(name.startswith(part) for name in names)]
        if absent:
            yield Finding(variable, "fail", f"{value}: no such interface", f"one of {', '.join(names)}, or unset it")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
            address = probe.getsockname()[0]
        except OSError:
            address = "none: one node only"
    yield Finding("network", "ok", f"{', '.join(names)}; towards other nodes {address}", "")
    proxy = next((name for name in ("http_proxy", "HTTP_PROXY") if environment.get(name)), None)
    spared = environment.get("no_proxy", "") + environment.get("NO_PROXY", "")
    if proxy and not any(host in spared for host in ("127.0.0.1", "localhost", "*")):
        yield Finding(
            proxy,
            "warn",
            "loopback goes through it",
            "export no_proxy=127.0.0.1,localhost: engines are spoken to there",
        )


def threads_and_files(environment: os._Environ[str] | dict[str, str]) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    yield Finding(
        "CPU",
        "ok" if cores >= 2 else "warn",
        f"{cores} cores",
        "" if cores >= 2 else "learner and engines will take turns",
    )
    threads = environment.get("OMP_NUM_THREADS")
    if threads and threads.isdigit() and int(threads) > cores:
        yield Finding(
            "OMP_NUM_THREADS",
            "warn",
            f"{threads} on {cores} cores",
            "oversubscribed threads are several times slower: unset it",
        )
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    enough = files >= 4096 or files == resource.RLIM_INFINITY
    yield Finding(
        "open files", "ok" if enough else "warn", str(files), "" if enough else "ulimit -n 65536 (Ray opens many)"
    )


def _environment_beside(kind: str) -> str | None:
    """What `make engines` made here."""
    python = Path(f".venv-{kind}/bin/python")
    return str(python) if python.exists() else None


def _output(command: list[str], timeout_s: float, *, last: bool = False) -> str | None:
    """What it prints, or its last line; None where it fails."""
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "SGLANG_USE_CPU_ENGINE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=True, env=environment)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.strip().splitlines()
    return (lines[-1] if lines else None) if last else done.stdout.strip()


def _reaches(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False
