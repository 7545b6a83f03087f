"""What a user sees of a run, read back from the files and the terminal."""

import io
import json

import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from corewarding.dataflow.metrics import Metrics
from corewarding.evals.heldout import EvalResult
from corewarding.launch.report.log import Watch
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.report.terminal import Terminal


def metrics(update):
    scalars = {
        "staleness/question_mean": 1.5,
        "staleness/max": 3.0,
        "reward/mean": update / 10,
        "throughput/completions_per_s": 12.0,
        "sync/policy_s": 0.25,
        "sync/teacher_s": 0.5,
    }
    return Metrics(
        scalars=scalars, histograms={"staleness/token": np.array([0, 1, 1, 3]), "staleness/label": np.array([])}
    )


ROW = {
    "question": "q1", "label": "7", "votes": {"7": 3, "1": 1}, "source": "policy", "view": "original", "answer": "7",
    "reward": 1.0, "versions": [2, 3], "text": "so | \\boxed{7}\nend",
}  # fmt: skip


@pytest.fixture
def run_dir(tmp_path):
    run_dir = RunDir(tmp_path, "a")
    for folder in (run_dir.tensorboard, run_dir.samples):
        folder.mkdir(parents=True)
    return run_dir


def watch_of(run_dir, *, terminal=False, resumed_at=0):
    console = Console(file=io.StringIO(), force_terminal=terminal, highlight=False, soft_wrap=True, width=200)
    shown = Terminal(total_updates=4, resumed_at=resumed_at, console=console)
    return Watch(run_dir, shown, total_updates=4, resumed_at=resumed_at), console.file


def board(run_dir):
    accumulator = EventAccumulator(
        str(run_dir.tensorboard), size_guidance={"tensors": 0, "scalars": 0, "histograms": 0}
    )
    accumulator.Reload()
    return accumulator


def test_tensorboard_has_scalars_histograms_and_the_page_of_samples(run_dir):
    watch, _ = watch_of(run_dir)
    watch.update(1, metrics(1), [ROW])
    watch.update(2, metrics(2), [])
    watch.evaluation(2, EvalResult(num_questions=9, n=8, greedy=0.5, mean=0.25, maj=0.75), name="after")
    watch.close()
    read = board(run_dir)
    assert [(e.step, pytest.approx(e.value)) for e in read.Scalars("reward/mean")] == [(1, 0.1), (2, 0.2)]
    assert read.Scalars("eval/mean@8")[0].value == 0.25
    histogram = read.Histograms("staleness/token")[0].histogram_value
    assert (histogram.num, histogram.max, histogram.sum) == (4, 3, 5)
    page = read.Tensors("samples/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "label **7** from votes {'7': 3, '1': 1}" in page
    assert "| policy/original | 7 | 1.0 | [2, 3] | `so \\| \\boxed{7} end` |" in page


def test_every_update_is_a_line_of_json_and_its_samples_a_file(run_dir):
    watch, _ = watch_of(run_dir)
    watch.update(1, metrics(1), [ROW])
    watch.close()
    (line,) = map(json.loads, run_dir.metrics.read_text().splitlines())
    assert (line["update"], line["kind"], line["staleness/max"]) == (1, "update", 3.0)
    assert json.loads((run_dir.samples / "update-000001.jsonl").read_text()) == ROW
    assert watch.staleness == [(1.5, 3.0)]


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(run_dir):
    watch, _ = watch_of(run_dir)
    for update in (1, 2, 3):
        watch.update(update, metrics(update), [])
    watch.close()
    watch, _ = watch_of(run_dir, resumed_at=2)
    watch.update(3, metrics(9), [])
    watch.close()
    rows = [json.loads(line) for line in run_dir.metrics.read_text().splitlines()]
    assert [(row["update"], row["reward/mean"]) for row in rows] == [(1, 0.1), (2, 0.2), (3, 0.9)]
    assert [(e.step, pytest.approx(e.value)) for e in board(run_dir).Scalars("reward/mean")] == [
        (1, 0.1),
        (2, 0.2),
        (3, 0.9),
    ]


def test_one_fixed_line_per_update_and_no_status_line_in_a_file(run_dir):
    watch, out = watch_of(run_dir)
    with watch.terminal:
        watch.terminal.phase("training")
        watch.update(4, metrics(4), [])
    watch.close()
    (line,) = out.getvalue().splitlines()
    assert line == "update    4/4  reward 0.40  stale 1.50  max 3  compl/s 12  sync 0.75s  left 0:00"


def test_a_terminal_has_a_status_line_with_the_time_left(run_dir):
    watch, out = watch_of(run_dir, terminal=True)
    with watch.terminal:
        watch.terminal.phase("training")
        watch.update(4, metrics(4), [])
        watch.terminal.phase("evaluating after training")
    watch.close()
    assert "evaluating after training" in out.getvalue()
    assert "4/4" in out.getvalue().split("evaluating after training")[-1]
