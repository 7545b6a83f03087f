"""What Optuna's search knows after a sweep was interrupted."""

from corewarding.launch.sweep.arguments import SweepKeys, parse_sweep
from corewarding.launch.sweep.folder import Record
from corewarding.launch.sweep.trial import trial_of
from corewarding.launch.sweep.tuning import suggested

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
