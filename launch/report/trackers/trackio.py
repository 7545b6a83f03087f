"""The client of Trackio. Offline it leaves a data base that `trackio show` opens."""

from __future__ import annotations

import os
from collections.abc import Mapping

from corewarding.launch.report.board.tags import tag
from corewarding.launch.report.trackers.tracker import Report, RunFacts


class Trackio:
    """A Client. A resumed run goes on under its name."""

    def __init__(self, run: RunFacts) -> None:
        if run.offline:
            os.environ["TRACKIO_DIR"] = str(run.folder / "trackers" / "trackio")
            for online in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID", "TRACKIO_WEBHOOK_URL"):
                os.environ.pop(online, None)
        import trackio  # reads the environment

        self._run = trackio.init(
            project=run.project,
            name=run.name,
            config=dict(run.config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def report(self, report: Report) -> None:
        self._run.log({tag(name).on_board: value for name, value in report.scalars.items()}, step=report.update)

    def finish(self, summary: Mapping[str, str | float | None]) -> None:
        if summary:
            self._run.log({f"summary/{key}": value for key, value in summary.items()})
        self._run.finish()
