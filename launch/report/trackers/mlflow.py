"""The client of MLflow. Offline it leaves the files of a tracking store, which `mlflow ui` opens."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from corewarding.dataflow.spans import now_s
from corewarding.launch.report.board.tags import tag
from corewarding.launch.report.trackers.tracker import Report, RunFacts

_PARAMS = 100  # in one request, the most that a server takes
_LONGEST = 6000  # characters of a value


class MLflow:
    """A Client. A resumed run keeps its id, so its parts are one run there."""

    def __init__(self, run: RunFacts) -> None:
        folder = run.folder / "trackers" / "mlflow"
        folder.mkdir(parents=True, exist_ok=True)
        if run.offline:
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # the store needs nothing installed beside the client
        self._client = MlflowClient(tracking_uri=folder.as_uri() if run.offline else None)
        file = folder.with_name("mlflow.id")
        if not file.is_file():
            experiment = self._client.get_experiment_by_name(run.project)
            number = experiment.experiment_id if experiment else self._client.create_experiment(run.project)
            file.write_text(self._client.create_run(number, run_name=run.name).info.run_id)
        self._id = file.read_text()
        self._client.update_run(self._id, status="RUNNING")
        self._params("", {} if run.resumed_at else run.config)  # a param is written once

    def report(self, report: Report) -> None:
        self._metrics({tag(name).on_board: value for name, value in report.scalars.items()}, report.update)

    def finish(self, summary: Mapping[str, str | float | None]) -> None:
        numbers = {key: value for key, value in summary.items() if isinstance(value, int | float)}
        self._metrics({f"summary/{key}": value for key, value in numbers.items()}, int(summary.get("updates") or 0))
        self._params("summary/", {key: value for key, value in summary.items() if key not in numbers})
        self._client.set_terminated(self._id, "FINISHED" if summary else "KILLED")

    def _metrics(self, values: Mapping[str, float], update: int) -> None:
        moment = int(now_s() * 1000)
        metrics = [Metric(key.replace("@", "_at_"), float(value), moment, update) for key, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)  # MLflow takes no @ in a name

    def _params(self, prefix: str, values: Mapping[str, str | float | None]) -> None:
        params = [Param(f"{prefix}{key}".replace("@", "_at_"), str(value)[:_LONGEST]) for key, value in values.items()]
        for start in range(0, len(params), _PARAMS):
            self._client.log_batch(self._id, params=params[start : start + _PARAMS])
