"""One trial in Tune's hands: a process of Ray that runs `corewarding train` as a program of its own and reports what it writes.

Tune schedules, the program trains: the trial's folder is an ordinary run, which its own command resumes. The program has its own Ray,
apart from Tune's, or joins the cluster of RAY_ADDRESS as every run does.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from corewarding.dataflow.errors import UserError
from corewarding.launch.config.paths import IMPORT_PATH
from corewarding.launch.report.files import whole_rows
from corewarding.launch.report.run_lock import RunLockedError, refuse_locked
from corewarding.launch.run.ending.local_ray import MARK, SESSION
from corewarding.launch.run.ending.own_ray import own_folder
from corewarding.launch.run.ending.stopping import ENDING_S
from corewarding.launch.run.placement import NO_ROOM, NOT_STARTED
from corewarding.launch.run.preflight.needs import joins_cluster
from corewarding.launch.sweep.cores import Cores
from corewarding.launch.sweep.folder import Status, SweepFolder
from corewarding.launch.sweep.places import Places, room_of
from corewarding.launch.sweep.plan import SweepPlan, Trial, text_of
from corewarding.launch.sweep.results import accuracy_of, latest_accuracy, measured

REPORT_S = 1.0
"""How often a trial tells Tune how far it is."""
MOST_STARTS = 3
"""So often a trial starts on a machine that is too busy for Ray's own processes."""
SCORE, ACCURACY, UPDATE = "score", "accuracy", "update"
"""What a trial reports: its accuracy, the last held-out one during training, and how far it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What all trials share. Not among the settings that Tune gives each, because Tune writes those to files: it has secrets."""

    plan: SweepPlan
    path: Path  # of its folder
    places: Places
    environment: dict[str, str]  # of the trials' programs
    directory: str  # in which they run


def program_environment() -> dict[str, str]:
    """This process's environment for the programs of trials, without what marks the processes of Tune's Ray."""
    path = [str(IMPORT_PATH), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    kept = {name: value for name, value in os.environ.items() if name not in (MARK, SESSION)}
    return kept | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}


def trial_of(settings: dict[str, Any], plan: SweepPlan) -> Trial:
    """The trial that Tune means by its settings: one of a list, or a point that its search suggests, with the number of its seed."""
    if "trial" in settings:
        return Trial(settings["trial"]["point"], settings["trial"]["seed"])
    values = {axis.key: text_of(axis, settings[axis.key]) for axis in plan.axes}
    return Trial(values, plan.seeds[settings.get("__trial_index__", 0)])


class TrainedTrial(Trainable):
    """Runs the program of one trial. `step` looks at it once a second; `cleanup` ends it with a checkpoint."""

    def setup(self, config: dict[str, Any], *, sweep: Sweep) -> None:  # type: ignore[override]  # Tune passes it on
        plan, self._sweep = sweep.plan, SweepFolder(sweep.path)
        self._environment, self._directory = sweep.environment, sweep.directory
        self._trial = trial_of(config, plan)
        self._run = self._sweep.run_of(self._trial)
        self._program: subprocess.Popen[bytes] | None = None
        self._words = [
            f"{k}={v}"
            for k, v in {**self._trial.point, **plan.own_keys(self._trial, root=str(self._sweep.path))}.items()
        ]
        self._grace_s = plan.base.run.grace_s
        self._of_samples = plan.base.eval.quick_samples > 0  # also of a trial that ends here
        self._cores: Cores | None = None
        self._others_ran = False  # when the program started
        self._starts = 0  # in which Ray did not come up
        record = self._sweep.record_of(self._trial)
        self._ended: Status | None = None if record is None or record.status == "running" else record.status
        self._score = 0.0 if record is None else record.score
        if self._ended is not None:
            return
        try:
            config_here = plan.config_of(self._trial, root=str(self._sweep.path))
        except UserError as error:
            self._end("impossible", str(error))
            return
        if reason := sweep.places.lacking(config_here):
            self._end("impossible", reason)
            return
        self._config = config_here
        self._of_samples = config_here.eval.quick_samples > 0
        pinned = config_here.engine.cores is not None or config_here.learner.cores is not None
        if not joins_cluster() and not pinned:
            self._cores = Cores(own_folder(), math.ceil(room_of(config_here)["CPU"]))
        self._sweep.record(self._trial, "running")

    def step(self) -> dict[str, Any]:
        if self._ended is None and self._program is None and not self._waits():
            self._program = self._start()
        if self._program is None and self._ended is None:
            time.sleep(REPORT_S)
        elif self._program is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._judge(self._program.wait(REPORT_S))
        return self._report()

    def cleanup(self) -> None:
        """Called at the end of a trial, also of one that Tune or a person stops before it has finished."""
        if self._program is not None and self._program.poll() is None:
            self._program.terminate()
            try:
                self._program.wait(self._grace_s + ENDING_S)
            except subprocess.TimeoutExpired:
                self._program.kill()
        if self._cores is not None:
            self._cores.give_back()

    def _waits(self) -> bool:
        """Whether the program must not start now, or not at all.

        Its folder may still be another program's: of a killed sweep, which makes its checkpoint, or of a trial of the same point,
        whose result is then this one's, too. Or its cores are.
        """
        record = self._sweep.record_of(self._trial)
        if record is not None and record.status != "running":
            self._ended, self._score = record.status, record.score
            return True
        try:
            refuse_locked(self._run.path)
        except RunLockedError:
            return True
        if self._run.finished(self._config) is not None:
            self._end("finished")
            return True
        return self._cores is not None and not self._cores.take()

    def _start(self) -> subprocess.Popen[bytes]:
        self._others_ran = self._others_run()
        env = dict(self._environment)
        if "CUDA_VISIBLE_DEVICES" in os.environ and not joins_cluster():
            env["CUDA_VISIBLE_DEVICES"] = os.environ["CUDA_VISIBLE_DEVICES"]  # those that Ray gives this trial
        cores = ",".join(map(str, self._cores.numbers)) if self._cores is not None else ""
        launcher = Path(__file__).with_name("launcher.py")
        program = [sys.executable, "-m", "corewarding.launch.cli", "train", str(self._sweep.config), *self._words]
        with self._sweep.log_of(self._trial).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(launcher), cores or "-", *program],
                env=env,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self._cores.files if self._cores is not None else (),
            )

    def _judge(self, code: int) -> None:
        said = last_words(self._sweep.log_of(self._trial))
        if code == 0 and self._run.summary.is_file():
            self._end("finished")
        elif code == 1 and self._run.summary.is_file():  # only a run that ended itself leaves both
            self._end("collapsed", said)
        elif code in (1, 2) and NO_ROOM in said and (self._others_ran or self._others_run()):
            self._program = None  # it starts again, and waits for their room
        elif code in (1, 2) and NOT_STARTED in said:
            self._starts += 1
            self._program = None
            if self._starts == MOST_STARTS:
                self._end("failed", said)
        elif code == 2:
            self._end("impossible", said)
        else:
            self._end("failed", said or f"exit code {code}; see {self._sweep.log_of(self._trial)}")

    def _others_run(self) -> bool:
        """Whether another trial of this sweep has room now."""
        for record in self._sweep.records():
            try:
                if record.status == "running" and record.trial != self._trial:
                    refuse_locked(self._sweep.run_of(record.trial).path)
            except RunLockedError:
                return True
        return False

    def _end(self, status: Status, reason: str = "") -> None:
        self._ended = status
        self._score = accuracy_of(measured(self._run)) if status == "finished" else 0.0
        self._sweep.record(self._trial, status, reason, score=self._score)

    def _report(self) -> dict[str, Any]:
        rows = whole_rows(self._run.metrics)
        update = max((row["update"] for row in rows if row.get("kind") == "update"), default=0)
        found = latest_accuracy(rows, of_samples=self._of_samples)
        accuracy = {} if found is None else {ACCURACY: found[1]}
        score = self._score if self._ended is not None else accuracy.get(ACCURACY, 0.0)
        compared = update if found is None or self._ended else found[0]
        return {UPDATE: compared, SCORE: score, "done": self._ended is not None} | accuracy


def last_words(log: Path) -> str:
    """The message with which the command in this log ended, without the command's name; empty if it said none."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    before, found, words = text.rpartition("corewarding: ")
    return words.strip() if found and (not before or before.endswith("\n")) else ""
