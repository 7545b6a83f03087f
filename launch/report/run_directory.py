"""The folder of one run. A run writes nothing outside it.

runs/<name>/{config.yaml, environment.json, model.json, tensorboard/, trackers/, metrics.jsonl, trace.jsonl, samples/, journal/,
tokens/, logs/, initial_answers.jsonl, checkpoints/, summary.json}; secrets.json if the configuration has any; changes.jsonl if the run
was resumed with other values; failure.txt if its last start failed.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from corewarding.dataflow.errors import UserError
from corewarding.launch.config.paths import PACKAGE
from corewarding.launch.config.secrets import FILE as SECRETS
from corewarding.launch.config.secrets import masked, masked_words, write_secrets
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.changes import LENGTH, OWN, Change, changes_between, record
from corewarding.launch.report.files import write_whole
from corewarding.launch.report.run_lock import FILE as LOCK
from corewarding.learner.checkpoint.store import SCORES, committed, update_of

_AT_THE_START = (LOCK, ".config.yaml.tmp", SECRETS)
"""What a start that was killed at once may leave in an empty folder."""


class RunDirError(UserError):
    """This folder cannot be used for this run."""


class RunDir:
    """The paths of one run."""

    def __init__(self, root: str | Path, name: str) -> None:
        self.path = Path(root) / name
        self.config = self.path / "config.yaml"
        self.tensorboard = self.path / "tensorboard"
        self.trackers = self.path / "trackers"
        self.metrics = self.path / "metrics.jsonl"
        self.trace = self.path / "trace.jsonl"
        self.samples = self.path / "samples"
        self.logs = self.path / "logs"
        self.initial_answers = self.path / "initial_answers.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.journal = self.path / "journal"
        self.tokens = self.path / "tokens"
        self.summary = self.path / "summary.json"
        self.failure = self.path / "failure.txt"
        self.changes: list[Change] = []  # of this start, since the run was saved

    def check(self, config: TrainConfig) -> bool:
        """Whether the run would resume; writes nothing. A run without a checkpoint starts again, with whatever configuration.

        RunDirError if the folder holds another run or a finished one, or if run.resume is `must` and it holds none.
        """
        exists = self.config.is_file()
        if not exists and config.run.resume == "must":
            raise RunDirError(f"{self.path} holds no run to resume (run.resume: must)")
        if not exists and self.path.exists() and any(path.name not in _AT_THE_START for path in self.path.iterdir()):
            raise RunDirError(f"{self.path} is not empty and holds no run of ours; choose another run.name or run.root")
        if exists:
            if config.run.resume == "never" or (config.run.resume == "auto" and self.summary.is_file()):
                state = "a finished run" if self.summary.is_file() else "a run"
                raise RunDirError(
                    f"{self.path} holds {state} already; choose another run.name, remove the folder, or `corewarding resume` it"
                )
            if self.last_update() is not None:
                self._refuse_other(config)
        return exists

    def open(self, config: TrainConfig, *, goes_on: bool = False) -> bool:
        """Makes the folder, or opens that of an interrupted run; returns True when resuming. Refuses what `check` refuses.

        goes_on: what was logged is kept although there is no checkpoint, because the journal has it all.
        """
        exists = self.check(config)
        last = self.last_update()
        self.changes = self.changes_of(config) if last is not None else []
        if exists and last is None and not goes_on:
            self._forget()
        self.path.mkdir(parents=True, exist_ok=True)
        self.failure.unlink(missing_ok=True)
        if last is None or self.changes:
            write_secrets(config.model_dump(mode="json"), self.path)
            write_whole(self.config, config_text(config))
            write_whole(self.path / "environment.json", json.dumps(_environment(), indent=1))
        for folder in (self.tensorboard, self.samples, self.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
        record(self.path, self.changes, after_update=last or 0)
        return exists

    def _forget(self) -> None:
        """Removes what a start without a checkpoint has logged: its updates happen again."""
        for file in (self.metrics, self.trace, self.initial_answers, self.checkpoints / SCORES):
            file.unlink(missing_ok=True)
        for folder in (self.tensorboard, self.trackers, self.samples, self.journal, self.tokens):
            shutil.rmtree(folder, ignore_errors=True)

    def last_update(self) -> int | None:
        """The update of the newest committed checkpoint; None if there is none."""
        folders = committed(self.checkpoints)
        return update_of(folders[-1]) if folders else None

    def finished(self, config: TrainConfig) -> dict[str, Any] | None:
        """The content of summary.json if the run has made all updates of `config`."""
        if not self.summary.is_file():
            return None
        try:
            summary: dict[str, Any] = json.loads(self.summary.read_text(encoding="utf-8"))
        except ValueError:
            return None  # cut: it is written again
        return summary if summary.get("updates") == config.train.updates else None

    def saved(self) -> dict[str, Any]:
        """The content of config.yaml. RunDirError if it is empty or garbled."""
        saved = None
        with suppress(yaml.YAMLError, UnicodeDecodeError):
            saved = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        if not isinstance(saved, dict):
            raise RunDirError(
                f"{self.config} is empty or garbled: restore it, or choose another run.name. A run that has no checkpoint yet starts "
                "again by its `corewarding train` command"
            )
        return saved

    def _refuse_other(self, config: TrainConfig) -> None:
        resumed = config.run.resume == "must"
        fixed = [change for change in self.changes_of(config) if not change.is_free]
        refused = [change for change in fixed if change.key != LENGTH or not resumed]
        done = self.last_update() or 0
        if refused:
            remedy = "these keys stay for the whole run: leave them out" if resumed else "choose another run.name"
            if refused[0].key == LENGTH:
                remedy = f"`corewarding resume {self.path} --train.updates {config.train.updates}` changes the length of a run"
            shown = "; ".join(map(str, refused[:5])) + ("; ..." if len(refused) > 5 else "")
            raise RunDirError(f"{self.path} holds a run with other values (saved -> given): {shown}; {remedy}")
        if fixed and config.train.updates < done:
            raise RunDirError(
                f"{LENGTH} {config.train.updates} is less than the {done} updates that {self.path} has made; give {done} or more"
            )

    def changes_of(self, config: TrainConfig) -> list[Change]:
        """Keys that differ from the saved configuration, apart from the folder's own."""
        saved = self.saved()
        return [change for change in changes_between(saved, config) if change.key not in OWN]


def config_text(config: TrainConfig) -> str:
    """The resolved configuration without its secrets, as config.yaml holds it."""
    return yaml.safe_dump(masked(config.model_dump(mode="json"), logins=False), sort_keys=False)


def _environment() -> dict[str, object]:
    revision = ""
    if (PACKAGE.parent / ".git").exists():  # an installed package may lie inside another project's repository
        revision = subprocess.run(
            ["git", "-C", str(PACKAGE), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
    packages = ("torch", "transformers", "ray", "numpy")
    return {
        "command": masked_words(sys.argv),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "revision": revision or None,
        "packages": {name: version(name) for name in packages},
    }
