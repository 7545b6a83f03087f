"""Plug-ins in a real run, from a file outside the checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.one_plugin import PLUGIN, WORDS, check, write_plugin

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(400)


def train(folder, *words):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "corewarding.launch.cli", "train", "cpu", *WORDS, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_rule_a_reader_and_a_metric_of_one_file_train(tmp_path):
    write_plugin(tmp_path)
    done = train(tmp_path, "--run.name", "digits")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    check(tmp_path / "mine" / "digits")


def test_a_rule_that_fails_while_scoring_is_one_message(tmp_path):
    broken = PLUGIN.replace("[sum(", "[1 // 0 + sum(")
    write_plugin(tmp_path, broken)
    done = train(tmp_path, "--run.name", "broken")
    assert done.returncode == 2, done.stdout[-3000:] + done.stderr[-3000:]
    line = 1 + next(number for number, text in enumerate(broken.splitlines()) if "1 // 0" in text)
    assert f"corewarding: rule 'digits' failed: {tmp_path}/rules.py line {line}: ZeroDivisionError" in done.stderr
    assert "Traceback" not in done.stderr
