"""The examples that train, each as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.more.cluster import ROOT, environment

EXAMPLES = ROOT / "examples"
pytestmark = pytest.mark.timeout(600)


def call(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("name", "expected"), [("custom_rule", "length/tokens_mean"), ("own_data", "labels read: 0")])
def test_an_example_trains(tmp_path: Path, name: str, expected: str) -> None:
    done = call(tmp_path, EXAMPLES / f"{name}.py")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert expected in done.stdout


def test_training_from_python_works_inside_a_running_event_loop(tmp_path: Path) -> None:
    code = (
        "import asyncio, runpy\n"
        f"async def notebook(): runpy.run_path({str(EXAMPLES / 'train_from_python.py')!r})\n"
        "asyncio.run(notebook())"
    )
    done = call(tmp_path, "-c", code)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "model for from_pretrained" in done.stdout
