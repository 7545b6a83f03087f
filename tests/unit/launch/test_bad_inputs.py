"""Every row of bad_inputs/ gets a message that names what is wrong, its exit code, no traceback, and leaves nothing behind."""

import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from corewarding.launch.cli import main
from corewarding.launch.run import placement
from tests.unit.launch.bad_inputs import REFUSED_BY_PARSING, REFUSED_LATER
from tests.unit.launch.bad_inputs.row import SHIPPED, Bad, Model

BAD_INPUTS = [*REFUSED_BY_PARSING, *REFUSED_LATER]
DRY = [dataclasses.replace(bad, line=f"{bad.line} --dry-run") for bad in REFUSED_LATER if bad.line.startswith("train ")]
"""`--dry-run` refuses what `train` refuses. Both parse with the same call, so rows that it refuses are not run twice."""


@pytest.mark.parametrize("bad", [*BAD_INPUTS, *DRY], ids=lambda bad: bad.line[:60])
@pytest.mark.usefixtures("fresh_tables")
def test_a_bad_input_is_answered(
    bad: Bad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(placement, "connect", lambda config: pytest.fail("a bad input came as far as Ray"))
    for name, value in bad.env.items():
        monkeypatch.setenv(name, value)
    before = prepare(bad, tmp_path)
    assert main(shlex.split(bad.line)) == bad.code
    shown = capsys.readouterr()
    told = " ".join(shown.err.split())
    assert told.startswith("corewarding: ")
    for part in bad.says:
        assert part in told
    assert "Traceback" not in shown.err + shown.out
    assert contents(tmp_path) == before


@pytest.mark.parametrize("line", ["train cpu --train.lr nan", "eval nope", "submit cpu --address http://127.0.0.1:9"])
def test_a_process_answers_the_same(line: str, tmp_path: Path) -> None:
    """Nothing that is imported or runs at exit adds to the message."""
    command = [sys.executable, "-m", "corewarding.launch.cli", *shlex.split(line)]
    path = {"PYTHONPATH": str(SHIPPED.parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    (message,) = done.stderr.splitlines()
    assert message.startswith("corewarding: ")
    assert contents(tmp_path) == {}


def prepare(bad: Bad, folder: Path) -> dict[str, bytes]:
    for name, content in bad.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        elif isinstance(content, Model):
            shutil.copytree(SHIPPED, path)
            for file, other in content.changed.items():
                if other is None:
                    (path / file).unlink(missing_ok=True)
                else:
                    (path / file).write_bytes(other.encode() if isinstance(other, str) else other)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in sorted(folder.rglob("*"))}


def test_the_table_is_as_large_as_it_must_be() -> None:
    assert len(BAD_INPUTS) >= 100
    assert len({(bad.line, str(bad.files)) for bad in BAD_INPUTS}) == len(BAD_INPUTS)
