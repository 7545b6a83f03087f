"""TensorBoard: events in the run directory, each tag with its description, pages of samples and figures of the vote."""

from __future__ import annotations

from collections.abc import Mapping

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalars
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.image import metadata as images
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

from corewarding.dataflow.spans import now_s
from corewarding.launch.report.board.layout import charts
from corewarding.launch.report.board.tags import tag
from corewarding.launch.report.trackers.pages import as_text, samples_page, votes_figure
from corewarding.launch.report.trackers.tracker import Report, RunFacts

FIGURE_EVERY = 10
"""Updates between two figures of the vote, which take a tenth of a second each."""


class TensorBoard:
    """A Tracker that writes event files. One event holds all of a report, so that nothing of it is shown without the rest."""

    def __init__(self, run: RunFacts) -> None:
        self._run = run

    def start(self) -> None:
        self._writer = EventFileWriter(str(self._run.folder / "tensorboard"))
        done = self._run.resumed_at
        # What an earlier start wrote from here on is hidden, because it happens again. The first start only says that it is one.
        start = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(wall_time=now_s(), step=done + 1, session_log=start))
        self._add(done, [_layout(), _table("config", self._run.config)])

    def report(self, report: Report) -> None:
        parts = [scalar_pb((t := tag(name)).on_board, value, t.description) for name, value in report.scalars.items()]
        parts += [
            histogram_pb((t := tag(name)).on_board, values, description=t.description)
            for name, values in report.histograms.items()
        ]
        if report.rows:
            parts.append(_text("samples", samples_page(report.rows)))
        if report.rows and report.update % FIGURE_EVERY == 1:
            parts.append(_image("votes", votes_figure(report.rows, report.histograms.get("vote/share"))))
        self._add(report.update, parts)
        self._writer.flush()

    def finish(self, summary: Mapping[str, str | float | None]) -> None:
        if summary:
            self._add(int(summary["updates"] or 0), [_table("summary", summary)])
        self._writer.close()

    def abandon(self) -> None:
        """Nothing is left: its thread ends with the run's process."""

    def _add(self, update: int, parts: list[Summary]) -> None:
        whole = Summary(value=[value for part in parts for value in part.value])
        self._writer.add_event(Event(wall_time=now_s(), step=update, summary=whole))


def _text(name: str, page: str) -> Summary:
    found: Summary = text_pb(tag(name).on_board, page, tag(name).description)
    return found


def _table(name: str, values: Mapping[str, str | float | None]) -> Summary:
    rows = [f"| {as_text(key)} | {as_text(value)} |" for key, value in values.items()]
    return _text(name, "\n".join(["| key | value |", "|---|---|", *rows]))


def _image(name: str, figure: tuple[int, int, bytes]) -> Summary:
    width, height, png = figure
    metadata = images.create_summary_metadata(display_name=None, description=tag(name).description)
    tensor = make_tensor_proto([str(width).encode(), str(height).encode(), png])
    return Summary(value=[Summary.Value(tag=tag(name).on_board, metadata=metadata, tensor=tensor)])


def _layout() -> Summary:
    category = [
        layout_pb2.Category(
            title=page,
            chart=[
                layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
                for title, tags in pictures.items()
            ],
        )
        for page, pictures in charts().items()
    ]
    tensor = make_tensor_proto(layout_pb2.Layout(category=category).SerializeToString())
    metadata = custom_scalars.create_summary_metadata()
    return Summary(value=[Summary.Value(tag=custom_scalars.CONFIG_SUMMARY_TAG, metadata=metadata, tensor=tensor)])
