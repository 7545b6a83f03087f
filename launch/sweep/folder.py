"""The folder of one sweep. Each trial is an ordinary run in a folder of its own; what became of it is a file beside it.

sweeps/<name>/{sweep.json, config.yaml, trials/<trial>.json, trials/<trial>.log, <trial>/, results.json, front.png, tune/};
secrets.json if the configuration has any.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from corewarding.launch.config.secrets import write_secrets
from corewarding.launch.report.changes import changes_between
from corewarding.launch.report.files import write_whole
from corewarding.launch.report.run_directory import RunDir, config_text
from corewarding.launch.sweep.axes import SweepError
from corewarding.launch.sweep.plan import SweepPlan, Trial

Status = Literal["running", "finished", "stopped early", "collapsed", "failed", "impossible"]
"""`running` also says that the trial was interrupted and goes on with the sweep. Every other one is final."""


@dataclass(frozen=True, slots=True)
class Record:
    """What became of a trial."""

    point: Mapping[str, str]
    seed: int
    status: Status
    reason: str = ""
    score: float = 0.0  # by which a search compares trials; 0 for one without a result

    @property
    def trial(self) -> Trial:
        return Trial(dict(self.point), self.seed)


class SweepFolder:
    """The paths of one sweep, and its records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan = path / "sweep.json"
        self.config = path / "config.yaml"
        self.trials = path / "trials"
        self.tune = path / "tune"
        self.results = path / "results.json"
        self.picture = path / "front.png"

    def run_of(self, trial: Trial) -> RunDir:
        return RunDir(self.path, trial.name)

    def log_of(self, trial: Trial) -> Path:
        return self.trials / f"{trial.name}.log"

    def check(self, plan: SweepPlan) -> bool:
        """Whether the folder holds this sweep already. SweepError if it holds something else; writes nothing."""
        if not self.plan.is_file():
            if self.path.exists() and any(path.name != ".lock" for path in self.path.iterdir()):
                raise SweepError(f"{self.path} is not empty and holds no sweep; choose another --name")
            return False
        saved = json.loads(self.plan.read_text(encoding="utf-8"))
        for key, value in described(plan).items():
            if saved.get(key) != value:
                raise SweepError(
                    f"{self.path} holds a sweep with other points ({key}: {_words(saved.get(key))}, and now {_words(value)}); "
                    "choose another --name, or give the same --over, --seeds, --search and --trials"
                )
        changes = [
            change
            for change in changes_between(yaml.safe_load(self.config.read_text(encoding="utf-8")), plan.base)
            if not change.key.startswith("run.") and change.key != "plugins"  # a job brings a copy of its own
        ]
        if changes:
            raise SweepError(
                f"{self.path} holds a sweep of another configuration (saved -> given): {'; '.join(map(str, changes[:5]))}; choose "
                "another --name"
            )
        return True

    def open(self, plan: SweepPlan) -> None:
        """Makes the folder, or opens that of an interrupted sweep."""
        self.trials.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.tune, ignore_errors=True)  # Tune's view of an earlier start
        if not self.plan.is_file():
            write_secrets(plan.base.model_dump(mode="json"), self.path)
            write_whole(self.config, config_text(plan.base))
            write_whole(self.plan, json.dumps(described(plan), indent=1) + "\n")

    def forget_failures(self) -> None:
        """Forgets what became of the trials that ended without a result, so that they are run again."""
        for record in self.records():
            if record.status not in ("finished", "running"):
                (self.trials / f"{record.trial.name}.json").unlink()
                self.run_of(record.trial).summary.unlink(missing_ok=True)  # of a run that ended itself

    def record(self, trial: Trial, status: Status, reason: str = "", *, score: float = 0.0) -> None:
        """Says what became of the trial."""
        content = asdict(Record(dict(trial.point), trial.seed, status, reason, score))
        write_whole(self.trials / f"{trial.name}.json", json.dumps(content, indent=1) + "\n")

    def record_of(self, trial: Trial) -> Record | None:
        path = self.trials / f"{trial.name}.json"
        return Record(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def records(self) -> list[Record]:
        """Of all trials that were started, in the order of their names."""
        return [Record(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(self.trials.glob("*.json"))]


def described(plan: SweepPlan) -> dict[str, Any]:
    """What makes two sweeps the same, apart from the configuration."""
    over = {axis.key: axis.words for axis in plan.axes}
    return {
        "over": over,
        "seeds": list(plan.seeds),
        "search": plan.search,
        "num_points": plan.num_points,
        "stop_early": plan.stop_early,
    }


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={its}" for key, its in value.items())
    return str(value)
