"""Checks that this machine can run corewarding; every fault comes with its remedy.

A check is a function that yields findings. `fail` stops a run, `warn` costs speed or may cause a fault later, `ok` is for the record.
It starts no process except `nvidia-smi` and, for vLLM and SGLang, one Python each that imports them.
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.table import Table
from rich.text import Text

from corewarding.actors.engines import ENGINES, EngineKind
from corewarding.dataflow import plugins
from corewarding.dataflow.errors import UserError
from corewarding.launch.config.arguments import read_arguments
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.tables.output import JsonFlag, print_rows
from corewarding.launch.run.preflight.known_holes import holes_of

Status = Literal["ok", "warn", "fail"]
GB = 2**30
TORCH_FROM, TORCH_BELOW = (2, 11), (2, 15)
IMPORT_S = 180.0
_STYLE: dict[Status, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True)
class DoctorArguments:
    """Checks that this machine can run corewarding; every fault comes with its remedy. Exit code 1 if a check fails."""

    python: tuple[str, ...] = ()
    """Pythons that have an engine, as KIND=PYTHON: vllm=/opt/vllm/bin/python. The default of a kind is .venv-KIND/bin/python if
    `make engines` made it, else this Python."""
    plugins: tuple[str, ...] = ()
    """Files or modules that register engines, which are then checked, too."""
    json: JsonFlag = False
    """A JSON object on each line, for programs: of a check."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    what: str
    status: Status
    found: str
    remedy: str = ""


def run(words: list[str]) -> int:
    arguments = read_arguments(DoctorArguments, words, prog="corewarding doctor")
    plugins.load(plugins.resolve(arguments.plugins, folders=[Path.cwd()]))
    return doctor(pythons=_pythons(arguments.python), root=TrainConfig().run.root, as_json=arguments.json)


def _pythons(words: tuple[str, ...]) -> dict[str, str]:
    """Kind of engine to its Python, from KIND=PYTHON. UserError for a kind that needs no package, or no such file."""
    kinds = [kind for kind, row in ENGINES.items() if row.package is not None]
    found = dict(word.partition("=")[::2] for word in words)
    for kind, python in found.items():
        if kind not in kinds:
            raise UserError(f"--python {kind}={python}: must be KIND=PYTHON with KIND one of {', '.join(kinds)}")
        if shutil.which(python) is None:
            raise UserError(f"--python {kind}={python}: there is no such program")
    return found


def doctor(*, pythons: Mapping[str, str], root: str, as_json: bool = False) -> int:
    """Prints the report; returns 1 if a check fails. pythons: of kinds of engines. root: the folder of all runs."""
    checks = (
        python_and_torch(),
        known_holes(),
        gpus(),
        ray_setup(os.environ),
        *(
            engine(kind, row, pythons.get(kind) or _environment_beside(kind))
            for kind, row in ENGINES.items()
            if row.package is not None
        ),
        ports(),
        space("/dev/shm", 2 * GB, "Ray's object store lives there: make it larger (docker run --shm-size 8g)"),
        space(root, 10 * GB, "checkpoints and samples go there: set --run.root to a larger disk"),
        space(
            os.environ.get("RAY_TMPDIR", "/tmp"), 5 * GB, "Ray's sessions and spilled objects go there: set RAY_TMPDIR"
        ),
        network(os.environ),
        proxy(os.environ),
        threads_and_files(os.environ),
    )
    findings = [finding for check in checks for finding in check]
    print_rows(map(asdict, findings), lambda: _table(findings), as_json=as_json)
    failed = sum(finding.status == "fail" for finding in findings)
    warned = sum(finding.status == "warn" for finding in findings)
    if not as_json:
        print(f"\n{len(findings)} checks: {failed} failed, {warned} warnings")
    return 1 if failed else 0


def _table(findings: Sequence[Finding]) -> Table:
    table = Table("", "what", "found", "remedy", box=None, pad_edge=False)
    for finding in findings:
        status = Text(finding.status, style=_STYLE[finding.status])
        table.add_row(status, *map(Text, (finding.what, finding.found, finding.remedy)))
    return table


def judge(what: str, good: bool, found: str, remedy: str, *, otherwise: Status = "fail") -> Finding:
    """`ok` without a remedy if `good`, else the status `otherwise` with the remedy."""
    return Finding(what, "ok", found) if good else Finding(what, otherwise, found, remedy)


def python_and_torch() -> Iterator[Finding]:
    version = sys.version_info
    found = f"{version.major}.{version.minor} at {sys.executable}"
    yield judge("Python", version >= (3, 11), found, "corewarding needs 3.11 or newer")
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", "fail", str(error), "pip install torch (first, from the index that fits your machine)")
        return
    number = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    yield judge("torch", TORCH_FROM <= number < TORCH_BELOW, torch.__version__, "corewarding supports 2.11 to 2.14")


def known_holes() -> Iterator[Finding]:
    for package in ("ray", "torch", "transformers"):
        version = importlib.metadata.version(package)
        yield from (Finding(package, "fail", version, hole.remedy) for hole in holes_of(package, version))


def gpus() -> Iterator[Finding]:
    import torch

    answer = output_of(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"], 20)
    cards = answer.splitlines() if answer is not None else []
    if not cards:
        yield Finding("GPU", "ok", "none: runs use the CPU")
    elif not torch.cuda.is_available():
        remedy = (
            "install the CUDA build of torch that fits the driver"
            if torch.version.cuda is None
            else "update the driver"
        )
        if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
            remedy = "CUDA_VISIBLE_DEVICES is empty: unset it"
        yield Finding("GPU", "fail", f"{len(cards)} x {cards[0]}, not usable by torch {torch.__version__}", remedy)
    else:
        yield Finding("GPU", "ok", f"{torch.cuda.device_count()} x {cards[0]}, CUDA {torch.version.cuda}")
        if not torch.distributed.is_nccl_available():
            yield Finding("NCCL", "warn", "not in this torch", "publish.backend: gloo works, but is slower")


def ray_setup(environment: Mapping[str, str]) -> Iterator[Finding]:
    yield Finding("Ray", "ok", importlib.metadata.version("ray"))
    address = environment.get("RAY_ADDRESS")
    if address:
        token = Path(environment.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
        if environment.get("RAY_AUTH_MODE") == "token" and not token.exists() and "RAY_AUTH_TOKEN" not in environment:
            found = f"RAY_ADDRESS names a cluster, RAY_AUTH_MODE is token, and there is no {token}"
            remedy = "copy it from the cluster's machine, or make one before the cluster starts: ray get-auth-token --generate"
            yield Finding("Ray token", "fail", found, remedy)
        host, _, port = address.removeprefix("http://").removeprefix("ray://").partition(":")
        remedy = "start the cluster, or unset RAY_ADDRESS: a run then starts its own Ray"
        yield judge("RAY_ADDRESS", _reaches(host, int(port or 6379)), address, remedy)


def engine(kind: str, row: EngineKind, python: str | None) -> Iterator[Finding]:
    """Whether `python`, or this Python if None, can import the package of an engine."""
    package = row.package
    assert package is not None, f"{kind} needs no package"
    where = f" by {python}" if python else ""
    if python is None and importlib.util.find_spec(package) is None:
        yield Finding(kind, "ok", "not installed", f"only for engine.kind {kind}: {row.remedy}")
        return
    code = f"import {package}, torch; print(getattr({package}, '__version__', 'unknown'), torch.__version__)"
    answer = output_of([python or sys.executable, "-c", code], IMPORT_S, last=True)
    if answer is None:
        remedy = (
            f"run {python or sys.executable} -c 'import {package}' and fix the error that it shows, or {row.remedy}"
        )
        yield Finding(kind, "fail", f"cannot be imported{where}", remedy)
        return
    version, torch_version = answer.split()
    yield from (Finding(kind, "fail", f"{version}{where}", hole.remedy) for hole in holes_of(package, version))
    yield judge(
        kind,
        not row.tested or version in row.tested,
        f"{version}, torch {torch_version}{where}",
        f"tested with {', '.join(row.tested)}; make test-engines tests this one",
        otherwise="warn",
    )


def ports() -> Iterator[Finding]:
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            free = _reaches("127.0.0.1", listener.getsockname()[1])
    except OSError:
        free = False
    remedy = "engines, stores and servers use them: allow local connections (firewall, sandbox)"
    yield judge("loopback ports", free, "can be opened and reached" if free else "refused", remedy)
    taken = [port for port in (6379, 8265) if _reaches("127.0.0.1", port)]
    if taken:
        remedy = "a Ray runs here: `ray status`; with RAY_ADDRESS=auto a run joins it"
        yield Finding("Ray's ports", "warn", f"{taken} are in use", remedy)


def space(path: str, wanted: int, remedy: str) -> Iterator[Finding]:
    """Free bytes of the file system that holds `path`, or will hold it."""
    existing = Path(path).absolute()
    while not existing.exists():
        existing = existing.parent
    free, writable = shutil.disk_usage(existing).free, os.access(existing, os.W_OK)
    found = f"{free / GB:.1f} GB free" + ("" if writable else ", not writable")
    yield judge(path, writable and free >= wanted, found, remedy, otherwise="warn" if writable else "fail")


def network(environment: Mapping[str, str]) -> Iterator[Finding]:
    names = [name for _, name in socket.if_nameindex()]
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME"):
        value = environment.get(variable)
        wanted = [part.lstrip("=") for part in value.split(",")] if value and not value.startswith("^") else []
        absent = [part for part in wanted if not any(name.startswith(part) for name in names)]
        if absent:
            yield Finding(variable, "fail", f"{value}: no such interface", f"one of {', '.join(names)}, or unset it")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
            address = probe.getsockname()[0]
        except OSError:
            address = "none: one node only"
    yield Finding("network", "ok", f"{', '.join(names)}; address towards other nodes: {address}")


def proxy(environment: Mapping[str, str]) -> Iterator[Finding]:
    name = next((name for name in ("http_proxy", "HTTP_PROXY") if environment.get(name)), None)
    exempt = environment.get("no_proxy", "") + environment.get("NO_PROXY", "")
    if name and not any(host in exempt for host in ("127.0.0.1", "localhost", "*")):
        remedy = "export no_proxy=127.0.0.1,localhost: engines are reached there"
        yield Finding(name, "warn", "loopback goes through it", remedy)


def threads_and_files(environment: Mapping[str, str]) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    yield judge("CPU", cores >= 2, f"{cores} cores", "learner and engines will take turns", otherwise="warn")
    threads = environment.get("OMP_NUM_THREADS")
    if threads and threads.isdigit() and int(threads) > cores:
        remedy = "too many threads make a run several times slower: unset it"
        yield Finding("OMP_NUM_THREADS", "warn", f"{threads} on {cores} cores", remedy)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    enough = files >= 4096 or files == resource.RLIM_INFINITY
    yield judge("open files", enough, str(files), "ulimit -n 65536 (Ray opens many)", otherwise="warn")


def _environment_beside(kind: str) -> str | None:
    """The Python that `make engines` installed in the working directory, once it has finished."""
    environment = Path(f".venv-{kind}")
    return str(environment / "bin" / "python") if (environment / ".installed").exists() else None


def output_of(command: list[str], timeout_s: float, *, last: bool = False) -> str | None:
    """Standard output of the command, or its last line; None if it fails."""
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
