"""What Optuna's search knows after a sweep was interrupted, and what is said of a trial whose process in Tune has died."""

from pathlib import Path

from corewarding.launch.sweep.arguments import SweepKeys, parse_sweep
from corewarding.launch.sweep.folder import Record
from corewarding.launch.sweep.trial import trial_of
from corewarding.launch.sweep.tuning import last_line, suggested

WORDS = ["--over", "train.lr=log:1e-5..1e-3", "--over", "staleness.max=1,2", "--search", "optuna", "--trials", "4"]


def test_begun_points_come_first_and_finished_ones_never_again() -> None:
    plan = parse_sweep(SweepKeys, ["cpu", *WORDS, "--seeds", "2"], command="sweep").plan()
    num, fresh = suggested(plan, [])
    assert num == 8
    first, again = (trial_of(fresh.suggest(name), plan) for name in "ab")
    assert (first.point, first.seed, again.point, again.seed) == (first.point, 0, first.point, 1)

    begun = {"train.lr": "0.0002", "staleness.max": "2"}
    records = [Record(first.point, seed, "finished", score=0.9) for seed in (0, 1)] + [Record(begun, 0, "running")]
    num, search = suggested(plan, records)
    assert num == 6
    trials = [trial_of(search.suggest(str(number)), plan) for number in range(6)]
    assert [trial.point for trial in trials[:2]] == [begun, begun]
    assert first.point not in [trial.point for trial in trials]
    assert len({trial.name for trial in trials}) == 6


def test_the_death_of_a_trial_is_said_in_the_last_words_of_tunes_file(tmp_path: Path) -> None:
    file = tmp_path / "error.txt"
    assert last_line(None) == last_line(str(file)) == "no word"
    file.write_text("Failure # 1\nThe actor died unexpectedly.\n\tclass_name: Trial\nThe actor never ran.\n\n")
    assert last_line(str(file)) == "The actor never ran."
