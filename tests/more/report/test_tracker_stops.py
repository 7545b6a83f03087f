"""A whole run whose tracker stops answering."""

import json
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from tests.more.runs import started

LONGEST_S = 10.0
"""Far more than one of these updates takes on a busy machine; the tracker never answers again."""


@pytest.mark.timeout(600)
def test_a_tracker_that_stops_delays_no_update_and_is_named(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    with started(tmp_path, train__updates=40, data__num_train=256, report__trackers="wandb") as run:
        run.reaches(3)
        run.send(signal.SIGSTOP, "report.trackers.process")
        run.ends(0, "tracker wandb has", "metrics.jsonl has everything")
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    times = [row["time_s"] for row in rows if row["kind"] == "update"]
    assert len(times) == 40
    assert max(after - before for before, after in pairwise(times)) < LONGEST_S
