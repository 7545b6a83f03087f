"""The client of Weights & Biases. Offline it leaves a folder that `wandb sync` sends later."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import wandb

from corewarding.launch.report.board.tags import tag
from corewarding.launch.report.trackers.tracker import Report, RunFacts


class Wandb:
    """A Client. A resumed run keeps its id, so its parts are one run there."""

    def __init__(self, run: RunFacts) -> None:
        folder = run.folder / "trackers"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "wandb.id"
        if not file.is_file():
            file.write_text(secrets.token_hex(8))
        self._run = wandb.init(
            project=run.project,
            name=run.name,
            id=file.read_text(),
            resume="allow",
            dir=str(folder),
            config=dict(run.config),
            mode="offline" if run.offline else None,
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True
            ),
        )

    def report(self, report: Report) -> None:
        self._run.log({tag(name).on_board: value for name, value in report.scalars.items()}, step=report.update)

    def finish(self, summary: Mapping[str, str | float | None]) -> None:
        self._run.summary.update({f"summary/{key}": value for key, value in summary.items()})
        self._run.finish()
