"""The front, the choice, and what is written of them."""

import itertools
import json
from pathlib import Path

import pytest
from matplotlib import pyplot
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata

from corewarding.launch.config.load import load_config
from corewarding.launch.report.files import write_whole
from corewarding.launch.sweep.arguments import SweepKeys, parse_sweep
from corewarding.launch.sweep.axes import SweepError
from corewarding.launch.sweep.board import fill_board
from corewarding.launch.sweep.cores import Cores
from corewarding.launch.sweep.folder import Record, SweepFolder
from corewarding.launch.sweep.picture import label
from corewarding.launch.sweep.plan import SweepPlan, Trial
from corewarding.launch.sweep.results import Measured, PointResult, chosen, front, gathered, latest_accuracy
from corewarding.launch.sweep.show import show


def plan_of(*words: str) -> SweepPlan:
    return parse_sweep(SweepKeys, ["cpu", *words], command="sweep").plan()


PLAN = plan_of("--over", "staleness.max=0,1,2", "--seeds", "2")


def result(name: str, *runs: tuple[float | None, float, float | None], lost: int = 0) -> PointResult:
    others = [Record({"k": name}, seed, "failed", "why") for seed in range(lost)]
    return PointResult({"k": name}, [Measured(*run) for run in runs], others)


def names(results: list[PointResult]) -> list[str]:
    return [one.point["k"] for one in results]


def test_the_front_has_what_no_other_beats() -> None:
    accurate, fast, mild = (0.9, 10.0, 1e-3), (0.8, 20.0, 1e-3), (0.8, 10.0, 1e-5)
    worse = (0.8, 10.0, 1e-4)  # than `mild`, in mismatch
    assert names(front([result(n, run) for n, run in zip("abcd", (accurate, fast, mild, worse), strict=True)])) == [
        "a",
        "b",
        "c",
    ]


def test_what_is_not_measured_is_not_compared() -> None:
    assert names(
        front([result("a", (0.9, 10.0, None)), result("b", (0.8, 9.0, 1e-9)), result("c", (0.9, 9.0, 1e-9))])
    ) == ["a"]


def test_a_point_that_lost_a_seed_is_neither_on_the_front_nor_chosen() -> None:
    results = [result("a", (0.99, 99.0, 0.0), lost=1), result("b", (0.5, 1.0, 1.0), (0.5, 1.0, 1.0))]
    assert names(front(results)) == ["b"]
    assert chosen(results) is results[1]


def test_the_choice_is_the_fastest_among_those_as_accurate_as_the_seeds_can_tell() -> None:
    best = result("best", (0.88, 10.0, 1e-3), (0.92, 10.0, 1e-3))  # 0.90, deviation 0.028
    near = result("near", (0.88, 15.0, 1e-3), (0.88, 15.0, 1e-3))
    far = result("far", (0.80, 30.0, 1e-3), (0.80, 30.0, 1e-3))
    assert chosen([best, near, far]) is near
    assert chosen([result("a", (0.9, 10.0, None)), result("b", (0.89, 99.0, None))]).point["k"] == "a"  # type: ignore[union-attr]
    assert chosen([result("a", (None, 10.0, None))]) is None


def finished(folder: SweepFolder, trial: Trial, *, accuracy: float, mode: str = "decoupled") -> None:
    run = folder.run_of(trial)
    run.tensorboard.mkdir(parents=True)
    write_whole(run.config, f"correction: {{mode: {mode}}}\n")
    write_whole(
        run.summary, json.dumps({"after": {"mean@8": accuracy, "greedy": 0.0}, "completions_per_s": 50.0 + trial.seed})
    )
    rows = [{"kind": "update", "update": n, "mismatch/k3": value} for n, value in enumerate([9.0, 1e-3, 3e-3, 2e-3])]
    write_whole(run.metrics, "".join(json.dumps(row) + "\n" for row in rows))
    folder.record(trial, "finished", score=accuracy)


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """Two points with both seeds, and one of which a seed failed and the other is interrupted."""
    folder = SweepFolder(tmp_path / "s")
    folder.open(PLAN)
    for trial in PLAN.trials():
        bound = int(trial.point["staleness.max"])
        if bound < 2:
            finished(folder, trial, accuracy=0.8 + 0.02 * trial.seed + 0.1 * bound)
    folder.record(PLAN.trials()[2], "failed", "the disk is full")
    folder.record(PLAN.trials()[5], "running")
    return folder


def test_means_spreads_reasons_and_the_line_that_trains_the_choice(
    folder: SweepFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    show(folder, PLAN)
    told = capsys.readouterr().out
    assert "0.910 ± 0.014" in told
    assert "50.5 ± 0.7" in told
    assert "2.0e-03 ± 0.0e+00" in told  # the median after the first quarter
    assert "failed, interrupted" in told
    assert "max-2_seed-0 failed: the disk is full" in told
    assert f"corewarding train {folder.config} staleness.max=1\n" in told
    assert [row["front"] for row in json.loads(folder.results.read_text())] == [False, True, False]
    assert folder.picture.read_bytes().startswith(b"\x89PNG")
    assert load_config(folder.config).train.updates == PLAN.base.train.updates


def test_the_mismatch_of_bypass_is_not_measured(folder: SweepFolder) -> None:
    other = SweepFolder(folder.path.parent / "other")
    other.open(PLAN)
    finished(other, PLAN.trials()[0], accuracy=0.5, mode="bypass")
    assert [one.mean for one in gathered(other)] == [Measured(0.5, 50.0, None)]


def test_hparams_have_a_row_for_each_trial_however_often_they_are_filled(folder: SweepFolder) -> None:
    for _ in range(2):
        fill_board(folder, PLAN)
    for trial in PLAN.trials()[:2]:
        events = EventAccumulator(str(folder.run_of(trial).tensorboard))
        events.Reload()
        assert events.Tags()["scalars"] == ["sweep/accuracy", "sweep/throughput", "sweep/mismatch"]
        assert len(events.Scalars("sweep/accuracy")) == 1
        assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")


def test_hparams_say_which_trials_failed(folder: SweepFolder) -> None:
    good, bad, *_ = PLAN.trials()
    folder.record(bad, "collapsed", "one answer to all")
    fill_board(folder, PLAN)
    for trial, status in ((good, api_pb2.STATUS_SUCCESS), (bad, api_pb2.STATUS_FAILURE)):
        events = EventAccumulator(str(folder.run_of(trial).tensorboard))
        events.Reload()
        content = events.PluginTagToContent("hparams")["_hparams_/session_end_info"]
        assert metadata.parse_session_end_info_plugin_data(content).status == status


def test_labels_of_the_picture_do_not_stand_over_each_other() -> None:
    figure, axis = pyplot.subplots()
    same = [(one, Measured(0.5, 10.0 + 0.1 * i, None)) for i, one in enumerate(map(result, "abcdefgh"))]
    axis.scatter([mean.throughput for _, mean in same], [0.5] * 8)
    axis.margins(0.2)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in label(axis, same)]
    pyplot.close(figure)
    assert len(boxes) == 8
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_a_folder_with_another_sweep_is_refused(folder: SweepFolder) -> None:
    assert folder.check(PLAN)
    assert folder.check(plan_of("run.watchdog_s=9", "--over", "staleness.max=0,1,2", "--seeds", "2"))
    with pytest.raises(SweepError, match=r"other points \(over: staleness.max=0,1,2, and now staleness.max=0,1\)"):
        folder.check(plan_of("--over", "staleness.max=0,1", "--seeds", "2"))
    with pytest.raises(SweepError, match=r"other points \(seeds"):
        folder.check(plan_of("--over", "staleness.max=0,1,2"))
    with pytest.raises(SweepError, match=r"another configuration .*train.lr"):
        folder.check(plan_of("train.lr=1", "--over", "staleness.max=0,1,2", "--seeds", "2"))
    with pytest.raises(SweepError, match="holds no sweep"):
        SweepFolder(folder.trials).check(PLAN)


def test_failures_are_forgotten_and_finished_trials_are_not(folder: SweepFolder) -> None:
    folder.forget_failures()
    assert {record.status for record in folder.records()} == {"finished", "running"}
    assert len(folder.records()) == 5


def test_no_core_is_held_twice_and_none_is_kept_in_vain(tmp_path: Path) -> None:
    machine = Cores(tmp_path, 10**6)
    assert machine.take()  # a machine gives all it has
    num = len(machine.numbers)
    one = Cores(tmp_path, 1)
    assert not one.take()
    machine.give_back()
    assert one.take()
    assert not Cores(tmp_path, num).take()
    if num > 1:
        other = Cores(tmp_path, num - 1)
        assert other.take()
        assert not set(one.numbers) & set(other.numbers)


def test_trials_are_compared_by_the_same_accuracy_in_and_after_training() -> None:
    rows = [
        {"kind": "eval_before", "update": 0, "greedy": 0.9, "mean@8": 0.4},
        {"kind": "update", "update": 1},
        {"kind": "eval_quick", "update": 2, "greedy": 0.8, "mean@2": 0.5, "greedy_interval": [0.7, 0.9], "maj@2": 0.6},
    ]
    assert latest_accuracy(rows[:2], of_samples=False) is None
    assert latest_accuracy(rows, of_samples=False) == (2, 0.8)
    assert latest_accuracy(rows, of_samples=True) == (2, 0.5)
    after = {"kind": "eval_after", "update": 4, "mean@8": 0.7, "greedy": 0.85, "mean_interval": [0.6, 0.8]}
    assert latest_accuracy([*rows, after], of_samples=True) == (4, 0.7)
    assert latest_accuracy([*rows, after], of_samples=False) == (4, 0.85)
