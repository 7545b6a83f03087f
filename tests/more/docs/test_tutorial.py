"""Every command of docs/tutorial.md runs in order, as printed; but the installation, which the README's test makes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.more.cluster import ROOT, environment

pytestmark = pytest.mark.timeout(600)
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
INSTALL, *BLOCKS = re.findall(r"^```bash\n(.*?)^```", TUTORIAL, re.DOTALL | re.MULTILINE)
LEAVES = (
    ("runs/first/summary.json",),
    ("runs/first/trace.png", "runs/evals"),
    ("sweeps/staleness/front.png", "sweeps/staleness/results.json"),
    ("my-model/README.md", "my-model/model.safetensors", "my.yaml"),
)
"""What each block leaves in the working directory."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory, and beside it a folder of programs with `corewarding`."""
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "bin").mkdir()
    (folder / "work").mkdir()
    program = folder / "bin" / "corewarding"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m corewarding.launch.cli "$@"\n')
    program.chmod(0o755)
    return folder / "work"


def test_the_installation_is_the_one_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    make, *others = INSTALL.splitlines()
    assert make.startswith("make .venv/.installed")
    assert all(line in readme for line in others)
    assert len(BLOCKS) == len(LEAVES)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_runs_as_printed_and_leaves_what_it_says(number: int, folder: Path) -> None:
    path = f"{folder.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    words = ["bash", "--norc", "-c", f"set -euo pipefail\n{BLOCKS[number]}"]
    done = subprocess.run(words, cwd=folder, env=environment() | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert [name for name in LEAVES[number] if not (folder / name).exists()] == []
    if "corewarding runs" in BLOCKS[number]:
        assert re.search(r"^first +ended +co_rewarding_ii +6/6 ", done.stdout, re.MULTILINE)
