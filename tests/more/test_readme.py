"""Every command block of the README runs in order, in a fresh clone with a fresh environment, as printed.

Blocks that need a hub, a GPU, a CUDA wheel or a second machine are in STAND_INS: what changes in them, and why. There are at most 5.
"""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.more.cluster import ROOT, cluster_of, environment

pytestmark = pytest.mark.timeout(1500)
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
PAIRS = "--data.train pairs/original.parquet --data.rephrased pairs/rephrased.parquet --data.heldout None"
TINY = f"--model.path models/arithmetic-base --engine.kind embedded --engine.dtype float32 {PAIRS}"
ON_CPUS = (
    "--rollout.gpus-per-actor 0 --learner.gpus-per-rank 0 --rollout.cpus-per-actor 0.1 --learner.cpus-per-rank 0.1"
)
DRY = f"--dry-run {TINY} {ON_CPUS}"


class Rephraser(BaseHTTPRequestHandler):
    """A chat endpoint that rephrases the README's questions, as a served model would."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        have, sold = re.findall(r"\d+", body["messages"][-1]["content"])[-2:]
        wording = f"Someone sells {sold} of {have} coins. Count those that remain."
        choice = {"message": {"role": "assistant", "content": f"<rephrased>{wording}</rephrased>"}}
        answer = json.dumps({"choices": [choice] * body.get("n", 1)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def a_small_endpoint(block: str, shell: "Shell") -> Iterator[str]:
    """No 8B model is served here: a server on a free port that answers by a fixed sentence."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Rephraser)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield block.replace("localhost:8000", f"127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()


@contextlib.contextmanager
def no_cuda_wheels(block: str, shell: "Shell") -> Iterator[str]:
    """vLLM's wheels are gigabytes of CUDA: pip only says whether the extra and its version exist."""
    yield block.replace("pip install ", "pip install --dry-run --no-deps --quiet ")


@contextlib.contextmanager
def no_gpus(block: str, shell: "Shell") -> Iterator[str]:
    """No GPU and no hub: every recipe is checked with the built-in model, its own questions and the embedded engine."""
    yield re.sub(r"^(corewarding train \S+)(?: --dry-run)?", rf"\1 {DRY}", block, flags=re.MULTILINE)


@contextlib.contextmanager
def no_hour(block: str, shell: "Shell") -> Iterator[str]:
    """36 runs of minutes each: the points are made and checked, and nothing is trained (test_sweep.py trains)."""
    yield re.sub(r"^(corewarding sweep .*)$", r"\1 --dry-run", block, flags=re.MULTILINE)


@contextlib.contextmanager
def one_node(block: str, shell: "Shell") -> Iterator[str]:
    """One machine for the three of the block: a cluster of one node is started instead, and its checks run as a job on it."""
    kept = [line for line in block.splitlines() if not line.startswith(("export RAY", "ray "))]
    shell.env["RAY_AUTH_MODE"] = "token"
    with cluster_of(shell.cwd.parent, shell.env, shell.python, resources='{"sampling": 8, "training": 8}') as address:
        text = "\n".join(kept).replace("http://head:8265", address).replace("/shared/runs", "shared-runs")
        yield re.sub(r"^(corewarding submit \S+)", r"\1 --dry-run", text, flags=re.MULTILINE)


StandIn = Callable[[str, "Shell"], contextlib.AbstractContextManager[str]]
STAND_INS: dict[str, StandIn] = {
    "corewarding rephrase": a_small_endpoint,
    'pip install ".[vllm]"': no_cuda_wheels,
    "corewarding train one_gpu": no_gpus,
    "corewarding submit": one_node,
    "corewarding sweep": no_hour,
}
"""By a text that only their block has."""


@dataclasses.dataclass
class Shell:
    """A user's shell: its folder and its exported variables last from block to block."""

    cwd: Path
    env: dict[str, str]
    failed: str | None = None

    @property
    def python(self) -> Path:
        return self.cwd / ".venv" / "bin" / "python"

    def __call__(self, block: str) -> str:
        """What the block prints. Fails if one of its commands does."""
        script = f"set -eo pipefail\n{block}\nenv -0 > {self.cwd.parent}/env\npwd > {self.cwd.parent}/cwd\n"
        done = subprocess.run(
            ["bash", "--norc", "-c", script],
            cwd=self.cwd,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            self.failed = block
            pytest.fail(f"exit code {done.returncode} of:\n{block}\n{done.stdout[-4000:]}")
        pairs = (self.cwd.parent / "env").read_text().split("\0")
        self.env = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        self.cwd = Path((self.cwd.parent / "cwd").read_text().strip())
        return done.stdout


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """In a fresh clone, without this environment: only pip's cache and settings are shared."""
    folder = tmp_path_factory.mktemp("newcomer")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / "corewarding")], check=True)
    (folder / "home").mkdir()
    kept = {name: value for name, value in environment(checkout=None).items() if name != "VIRTUAL_ENV"}
    mine = {str(Path(sys.executable).parent), str(Path(sys.prefix) / "bin")}
    path = [str(Path(sys.base_prefix) / "bin"), *(p for p in kept["PATH"].split(os.pathsep) if p not in mine)]
    cache = os.environ.get("PIP_CACHE_DIR", str(Path.home() / ".cache" / "pip"))
    for name in ("RAY_AUTH_MODE", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"):  # of a make that runs the tests
        kept.pop(name, None)
    return Shell(
        folder / "corewarding",
        kept | {"HOME": str(folder / "home"), "PIP_CACHE_DIR": cache, "PATH": os.pathsep.join(path)},
    )


def test_the_stand_ins_are_few_and_each_has_its_block() -> None:
    assert len(STAND_INS) <= 5
    for text in STAND_INS:
        assert sum(text in block for _, block in BLOCKS) == 1, text


def test_every_command_of_the_readme_is_in_a_block_that_runs() -> None:
    others = re.sub(r"^```(bash|python)\n.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", others, re.DOTALL | re.MULTILINE)
    assert {language for language, _ in fenced} <= {"text", "bibtex", ""}
    assert not re.search(r"^(corewarding|make|pip|ray|source) ", "\n".join(text for _, text in fenced), re.MULTILINE)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_runs_as_printed(shell: Shell, number: int) -> None:
    language, block = BLOCKS[number]
    if shell.failed is not None:
        pytest.fail(f"an earlier block failed:\n{shell.failed}")
    if language == "python":
        (shell.cwd / "block.py").write_text(block)
        block = "python block.py"
    stand_in = next((change for text, change in STAND_INS.items() if text in block), None)
    with stand_in(block, shell) if stand_in else contextlib.nullcontext(block) as text:
        shell(text)


def test_the_runs_of_the_blocks_are_finished_and_read_no_label(shell: Shell) -> None:
    names = {"cpu"} | set(re.findall(r"--run\.name (\S+)", "".join(block for _, block in BLOCKS)))
    for name in names:
        summary = json.loads((shell.cwd / "runs" / name / "summary.json").read_text())
        assert summary["labels_read"] == 0, name
    after = json.loads((shell.cwd / "runs" / "cpu" / "summary.json").read_text())["after"]
    assert after["mean@8"] > 0.8
