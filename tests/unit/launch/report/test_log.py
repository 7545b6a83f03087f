"""The run log, read back from its files and the terminal."""

import html
import io
import json
import re

import numpy as np
import pytest
from rich.console import Console
from tensorboard import plugin_util
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.util.tensor_util import make_ndarray

from corewarding.dataflow.metrics import Metrics
from corewarding.evals.heldout import EvalResult
from corewarding.launch.config.load import make_config
from corewarding.launch.report.board.tags import UndeclaredTagError, tag
from corewarding.launch.report.log import RunLog
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.report.statistics import LogprobDifferences
from corewarding.launch.report.terminal import Terminal
from corewarding.launch.report.trackers.kinds import started


def metrics(update):
    scalars = {
        "staleness/question_mean": 1.5,
        "staleness/max": 3.0,
        "reward/mean": update / 10,
        "throughput/completions_per_s": 12.0,
        "time/publish_s": 0.75,
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


def terminal_of(*, live=False, resumed_at=0):
    console = Console(file=io.StringIO(), force_terminal=live, highlight=False, soft_wrap=True, width=200)
    return Terminal(total_updates=4, resumed_at=resumed_at, console=console), console.file


def log_of(run_dir, *, resumed_at=0):
    terminal, out = terminal_of(resumed_at=resumed_at)
    config = make_config({"run": {"name": run_dir.path.name, "root": str(run_dir.path.parent)}}, where="test")
    trackers = started(config, run_dir.path, terminal.warn, resumed_at=resumed_at, end_s=120.0)
    return RunLog(run_dir, terminal, trackers, resumed_at=resumed_at), out


def board(run_dir):
    accumulator = EventAccumulator(str(run_dir.tensorboard), tensor_size_guidance={})
    accumulator.Reload()
    return accumulator


def values(read, name):
    """(step, value) of a tag."""
    return [(one.step, make_ndarray(one.tensor_proto)) for one in read.Tensors(tag(name).on_board)]


def scalars(read, name):
    return [(step, pytest.approx(float(value))) for step, value in values(read, name)]


def newest(read, name):
    """The newest text of a tag."""
    return values(read, name)[-1][1].item().decode()


def test_tensorboard_has_scalars_histograms_and_the_page_of_samples(run_dir):
    log, _ = log_of(run_dir)
    log.update(1, metrics(1), [ROW])
    log.update(2, metrics(2), [])
    log.evaluation(2, EvalResult(num_questions=9, n=8, greedy=0.5, mean=0.25, maj=0.75), moment="after")
    log.close()
    read = board(run_dir)
    assert scalars(read, "reward/mean") == [(1, 0.1), (2, 0.2)]
    assert scalars(read, "eval/mean@8") == [(2, 0.25)]
    buckets = values(read, "staleness/token")[0][1]  # left, right, number
    assert (buckets[0, 0], buckets[-1, 1]) == (0, 3)
    assert [number for _, _, number in buckets if number] == [1, 2, 1]
    page = newest(read, "samples")
    assert "label **7** from votes 7: 3, 1: 1" in page
    assert cells_of(page)[-5:] == ["policy/original", "7", "1.0", "[2, 3]", "so | \\boxed{7} end"]


def test_a_tag_on_the_board_says_what_it_means(run_dir):
    log, _ = log_of(run_dir)
    log.update(1, metrics(1), [ROW])
    log.close()
    read = board(run_dir)
    ours = [name for name in read.Tags()["tensors"] if name != "custom_scalars__config__"]
    assert len(ours) == 9  # five scalars, a histogram, samples, votes, configuration
    for name in ours:
        assert read.SummaryMetadata(name).summary_description == tag(name.split("/", 1)[1]).description


def test_custom_scalars_begin_with_what_is_learned(run_dir):
    log, _ = log_of(run_dir)
    log.close()
    (layout,) = (one.tensor_proto.string_val[0] for one in board(run_dir).Tensors("custom_scalars__config__"))
    pages = [category.title for category in Layout.FromString(layout).category]
    assert pages == ["learning", "labels", "staleness", "correction", "throughput", "health"]


def test_the_figure_of_the_votes_is_an_image_whatever_a_model_answers(run_dir):
    log, _ = log_of(run_dir)
    log.update(1, metrics(1), [ROW | {"question": f"q{n}", "votes": {answer: 2}} for n, answer in enumerate(HOSTILE)])
    log.update(2, metrics(2), [ROW | {"votes": {"$\\frac{": 2, "\x1b\u202e漢": 3}, "label": "漢"}])
    log.close()
    ((step, (width, height, png)),) = values(board(run_dir), "votes")  # one in ten updates
    assert step == 1
    assert (int(width), png[:4]) == (720, b"\x89PNG")
    assert int(height) > 300


def test_config_and_summary_are_pages(run_dir):
    log, _ = log_of(run_dir)
    log.close({"updates": 4, "after": {"greedy": 0.5}})
    read = board(run_dir)
    config = cells_of(newest(read, "config"))
    assert config[config.index("train.updates") + 1] == "100"
    assert cells_of(newest(read, "summary"))[-4:] == ["updates", "4", "after.greedy", "0.5"]


def test_a_tag_that_is_declared_nowhere_is_refused(run_dir):
    log, _ = log_of(run_dir)
    with pytest.raises(UndeclaredTagError, match=r"reward/new.*tags\.toml"):
        log.update(1, Metrics(scalars={"reward/new": 1.0}), [])
    log.close()


def cells_of(page):
    """The cells of the tables as TensorBoard shows them, markup removed."""
    shown = plugin_util.markdown_to_safe_html(page)
    return [
        html.unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", shown, re.S)
    ]


HOSTILE = [
    '<img src="http://elsewhere/x.png">', "![](http://elsewhere/x.png)", "[here](http://elsewhere)", "<script>alert(1)</script>",
    "http://elsewhere", "| a | b |", "`code`", "**bold** _it_", "# head", "&lt;b&gt;", "a \\| b", "1. one", "<!-- x -->", "\\(x_1\\)",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_a_model_writes_is_markup_on_the_page(run_dir, text):
    log, _ = log_of(run_dir)
    row = ROW | {"text": text, "answer": text, "label": text, "votes": {text: 2}, "question": text}
    log.update(1, metrics(1), [row])
    log.close()
    page = newest(board(run_dir), "samples")
    assert cells_of(page)[-5:] == ["policy/original", text, "1.0", "[2, 3]", text]
    shown = plugin_util.markdown_to_safe_html(page)
    assert not re.search("<(img|a|script|code|em|h1)", shown)
    assert "elsewhere" not in re.sub(">[^<]*<", "><", shown)  # in no attribute


def test_control_characters_are_written_out_on_the_page(run_dir):
    log, _ = log_of(run_dir)
    log.update(1, metrics(1), [ROW | {"text": "a\x1b[31mb\u202ec"}])
    log.close()
    page = newest(board(run_dir), "samples")
    assert cells_of(page)[-1] == "a\\x1b[31mb\\u202ec"


def test_every_update_is_a_line_of_json_and_its_samples_a_file(run_dir):
    log, _ = log_of(run_dir)
    log.update(1, metrics(1), [ROW])
    log.close()
    (line,) = map(json.loads, run_dir.metrics.read_text().splitlines())
    assert (line["update"], line["kind"], line["staleness/max"]) == (1, "update", 3.0)
    assert json.loads((run_dir.samples / "update-000001.jsonl").read_text()) == ROW


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(run_dir):
    log, _ = log_of(run_dir)
    for update in (1, 2, 3):
        log.update(update, metrics(update), [])
    log.close()
    log, _ = log_of(run_dir, resumed_at=2)
    log.update(3, metrics(9), [])
    log.close()
    rows = [json.loads(line) for line in run_dir.metrics.read_text().splitlines()]
    assert [(row["update"], row["reward/mean"]) for row in rows] == [(1, 0.1), (2, 0.2), (3, 0.9)]
    assert scalars(board(run_dir), "reward/mean") == [(1, 0.1), (2, 0.2), (3, 0.9)]


@pytest.mark.parametrize("whole", [0, 1])
def test_a_half_written_line_of_a_killed_process_is_dropped(run_dir, whole):
    log, _ = log_of(run_dir)
    for update in range(1, 1 + whole):
        log.update(update, metrics(update), [])
    log.close()
    with run_dir.metrics.open("a") as file:
        file.write('{"update": 2, "ki')
    log, _ = log_of(run_dir, resumed_at=whole)
    log.update(2, metrics(2), [])
    assert [row["update"] for row in log.earlier_updates()] == [*range(1, 1 + whole), 2]
    log.close()


def test_the_self_test_is_a_row_and_a_line(run_dir):
    log, out = log_of(run_dir)
    log.self_test(0, {})
    log.self_test(
        3,
        {
            "policy": LogprobDifferences(mean=1e-6, p99=2e-6, highest=3e-6, num_tokens=9),
            "teacher": LogprobDifferences(mean=1e-5, p99=2e-5, highest=4e-5, num_tokens=9),
        },
    )
    log.close()
    (row,) = map(json.loads, run_dir.metrics.read_text().splitlines())
    assert (row["update"], row["kind"]) == (3, "self_test")
    assert (row["selftest/policy_p99"], row["selftest/teacher_max"]) == (2e-6, 4e-5)
    assert "agree within 4e-05" in out.getvalue()


def test_an_evaluation_is_a_row_and_a_line_of_its_accuracies(run_dir):
    log, out = log_of(run_dir)
    log.evaluation(2, EvalResult(num_questions=9, n=8, greedy=0.5), moment="quick")
    log.evaluation(
        4, EvalResult(num_questions=9, n=8, greedy=0.5, mean=0.25, maj=0.75, pass_at={4: 1.0}), moment="after"
    )
    log.close()
    rows = [json.loads(line) for line in run_dir.metrics.read_text().splitlines()]
    assert [(row["update"], row["kind"], row.get("pass@4")) for row in rows] == [
        (2, "eval_quick", None),
        (4, "eval_after", 1.0),
    ]
    assert out.getvalue().splitlines() == [
        "held-out (quick, 9 questions)  greedy 0.500",
        "held-out (after, 9 questions)  mean@8 0.250  maj@8 0.750  greedy 0.500",
    ]


def test_the_earlier_updates_are_read_back_for_a_resume(run_dir):
    log, _ = log_of(run_dir)
    log.update(1, metrics(1), [])
    log.evaluation(1, EvalResult(num_questions=9, n=8, greedy=0.5), moment="quick")
    assert [row["reward/mean"] for row in log.earlier_updates()] == [0.1]
    log.close()


GARBAGE = ['{"update": 3, "ki', "\x00" * 40, "[1, 2]", '"text"', "{" * 3000]


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_resume_reads_over_what_a_crash_left(run_dir, garbage, end):
    log, _ = log_of(run_dir)
    for update in (1, 2, 3):
        log.update(update, metrics(update), [ROW])
    log.close()
    with run_dir.metrics.open("a") as file:
        file.write(garbage + end)
    (run_dir.samples / "update-000004.jsonl").write_text(garbage)
    log, _ = log_of(run_dir, resumed_at=2)
    log.update(3, metrics(3), [ROW])
    assert [row["update"] for row in log.earlier_updates()] == [1, 2, 3]
    log.close()
    assert all(json.loads(line) for line in run_dir.metrics.read_text().splitlines())
    assert sorted(path.name for path in run_dir.samples.iterdir()) == [f"update-00000{n}.jsonl" for n in (1, 2, 3)]


@pytest.mark.parametrize("finished", [False, True])
def test_the_evaluation_after_training_stands_once(run_dir, finished):
    """A run that was killed after it, before its summary, makes it again. An extended run keeps it."""
    log, _ = log_of(run_dir)
    log.update(1, metrics(1), [])
    log.evaluation(1, EvalResult(num_questions=1, n=1, greedy=0.5), moment="after")
    log.close()
    if finished:
        run_dir.summary.write_text("{}")
    log_of(run_dir, resumed_at=1)[0].close()
    kinds = [json.loads(line)["kind"] for line in run_dir.metrics.read_text().splitlines()]
    assert kinds == ["update", "eval_after"][: 1 + finished]
