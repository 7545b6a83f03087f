"""Copies the trained model out of a run, as a Hugging Face folder."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from corewarding.dataflow.errors import UserError
from corewarding.launch.config.arguments import read_arguments
from corewarding.launch.config.load import load_config

if TYPE_CHECKING:
    from corewarding.learner.checkpoint.store import Checkpoint


@dataclasses.dataclass(frozen=True)
class ExportArguments:
    """Copies the trained model, a Hugging Face folder, out of a run."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory, for example runs/cpu."""
    out: Path
    """New folder for the model; must not exist."""
    which: Literal["policy", "teacher"] = "policy"
    """The policy, or the EMA teacher."""


class ExportError(UserError):
    """The run has no checkpoint, or the output folder exists."""


def run(words: list[str]) -> int:
    arguments = read_arguments(ExportArguments, words, prog="corewarding export")
    print(export_run(arguments.run_dir, arguments.out, arguments.which))
    return 0


def last_checkpoint(run_dir: Path) -> Checkpoint:
    """The run's newest committed, undamaged checkpoint. ExportError if there is none."""
    from corewarding.learner.checkpoint.store import CheckpointStore

    checkpoint = CheckpointStore(run_dir / "checkpoints", keep=1).latest() if run_dir.is_dir() else None
    if checkpoint is None:
        raise ExportError(f"{run_dir} holds no committed checkpoint; is it a run directory?")
    return checkpoint


def export_run(run_dir: Path, out: Path, which: Literal["policy", "teacher"]) -> str:
    """Writes the model of the last checkpoint to `out`, and returns a line that says so. The teacher is gathered from its shards."""
    checkpoint = last_checkpoint(run_dir)
    if out.exists():
        raise ExportError(f"--out {out} exists already; choose another folder")
    if which == "policy":
        shutil.copytree(checkpoint.model, out)
    else:
        from corewarding.launch.run.plans import learner_plan
        from corewarding.learner.learner import Learner

        config = load_config(run_dir / "config.yaml")
        if not config.keeps_teacher:
            raise ExportError(f"{run_dir}: rule {config.rule} keeps no teacher")
        learner = Learner(learner_plan(config))
        learner.load(checkpoint.learner, incarnation=0)
        learner.export(out, "teacher")
    return f"{which} after update {checkpoint.update} written to {out}"
