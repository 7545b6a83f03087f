"""The folder of one run. A run writes nothing outside it.

runs/<name>/{config.yaml, environment.json, tensorboard/, metrics.jsonl, trace.jsonl, samples/, initial_answers.jsonl,
checkpoints/, summary.json}
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import yaml

from corewarding.dataflow.errors import UserError
from corewarding.launch.config.paths import PACKAGE
from corewarding.launch.config.tree import TrainConfig

_CHANGEABLE = {"run", "eval", "collapse", "checkpoint", "learner", "engine", "publish"}
"""Sections that may differ when a run is resumed."""


class RunDirError(UserError):
    """This folder cannot be used for this run."""


class RunDir:
    """The paths of one run."""

    def __init__(self, root: str | Path, name: str) -> None:
        self.path = Path(root) / name
        self.config = self.path / "config.yaml"
        self.tensorboard = self.path / "tensorboard"
        self.metrics = self.path / "metrics.jsonl"
        self.trace = self.path / "trace.jsonl"
        self.samples = self.path / "samples"
        self.initial_answers = self.path / "initial_answers.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.summary = self.path / "summary.json"

    def open(self, config: TrainConfig) -> bool:
        """Makes the folder, or opens that of an interrupted run; returns True when resuming.

        RunDirError if the folder holds another run or a finished one, or if run.resume is `must` and it holds none.
        """
        exists = self.config.is_file()
        if not exists and config.run.resume == "must":
            raise RunDirError(f"{self.path} holds no run to resume (run.resume: must)")
        if not exists and self.path.exists() and any(self.path.iterdir()):
            raise RunDirError(f"{self.path} is not empty and holds no run of ours; choose another run.name or run.root")
        if exists:
            if config.run.resume == "never" or (config.run.resume == "auto" and self.summary.is_file()):
                state = "a finished run" if self.summary.is_file() else "a run"
                raise RunDirError(
                    f"{self.path} holds {state} already; choose another run.name, remove the folder, or `corewarding resume` it"
                )
            self._refuse_other(config)
        for folder in (self.tensorboard, self.samples, self.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
        if not exists:
            self.config.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
            (self.path / "environment.json").write_text(json.dumps(_environment(), indent=1))
        return exists

    def _refuse_other(self, config: TrainConfig) -> None:
        saved = yaml.safe_load(self.config.read_text())
        mine = config.model_dump(mode="json")
        changed = [key for key in mine if key not in _CHANGEABLE and saved.get(key) != mine[key]]
        if changed:
            raise RunDirError(
                f"{self.path} holds a run of another configuration (it differs in {', '.join(changed)}); choose another run.name"
            )


def _environment() -> dict[str, object]:
    revision = ""
    if (PACKAGE.parent / ".git").exists():  # an installed package may lie inside another project's repository
        revision = subprocess.run(
            ["git", "-C", str(PACKAGE), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
    packages = ("torch", "transformers", "ray", "numpy")
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "revision": revision or None,
        "packages": {name: version(name) for name in packages},
    }
