"""What `--over` makes of its words: values, points, names of trials."""

import re

import pytest

from corewarding.launch.config.command_line import parse_config
from corewarding.launch.config.load import load_config
from corewarding.launch.config.tree import RunSettings
from corewarding.launch.sweep.arguments import SweepKeys, parse_sweep
from corewarding.launch.sweep.axes import Axis, Range, read_axes
from corewarding.launch.sweep.places import copies, room_of
from corewarding.launch.sweep.plan import SweepPlan, Trial, impossible, numbers_of

BASE = load_config("cpu")


def plan_of(*words: str) -> SweepPlan:
    return parse_sweep(SweepKeys, ["cpu", *words], command="sweep").plan()


def test_lists_and_ranges_are_told_apart() -> None:
    words = [
        "staleness.max=0,1",
        "correction.token_band=[0.5, 2],null",
        "train.lr=log:1e-6..1e-4",
        "rollout.group-size=4..8",
    ]
    assert read_axes(words, BASE) == [
        Axis("staleness.max", ("0", "1")),
        Axis("correction.token_band", ("[0.5, 2]", "null")),
        Axis("train.lr", range=Range(1e-6, 1e-4, log=True, whole=False)),
        Axis("rollout.group_size", range=Range(4, 8, log=False, whole=True)),
    ]


def test_a_grid_has_every_pair_and_all_points_come_before_the_second_seed() -> None:
    plan = plan_of("--over", "staleness.max=1,2", "--over=correction.mode=decoupled,bypass", "--seeds", "2")
    assert [trial.name for trial in plan.trials()] == [
        f"max-{bound}_mode-{mode}_seed-{seed}"
        for seed in (0, 1)
        for bound in (1, 2)
        for mode in ("decoupled", "bypass")
    ]
    assert plan.num_trials == 8


def test_a_trial_is_the_configuration_with_its_point_and_its_own_folder() -> None:
    plan = plan_of("train.updates=7", "--over", "staleness.max=1,2", "--seeds", "3")
    config = plan.config_of(plan.trials()[5], root="/sweeps/cpu")
    assert (config.staleness.max, config.train.seed, config.train.updates) == (2, 2, 7)
    assert (config.run.root, config.run.name, config.collapse.on_collapse) == ("/sweeps/cpu", "max-2_seed-2", "stop")


def test_random_points_repeat_and_stay_in_their_ranges() -> None:
    words = (
        "--over",
        "train.lr=log:1e-6..1e-4",
        "--over",
        "rollout.group_size=4..6",
        "--trials",
        "20",
        "--search",
        "random",
    )
    points = plan_of(*words).points()
    assert points == plan_of(*words).points()
    assert all(1e-6 <= float(point["train.lr"]) <= 1e-4 for point in points)
    assert {point["rollout.group_size"] for point in points} == {"4", "5", "6"}
    lower = [point for point in points if float(point["train.lr"]) < 1e-5]
    assert 3 < len(lower) < 17  # by logarithm: half of them


def test_a_list_has_no_more_random_points_than_values() -> None:
    assert len(plan_of("--over", "staleness.max=1,2", "--trials", "9", "--search", "random").points()) == 2


def test_names_fit_a_folder_and_differ_where_points_differ() -> None:
    texts = ["[0.5, 2]", "[0.5, 3]", "x" * 200, "x" * 201, "1"]
    names = [Trial({"correction.token_band": text, "staleness.max": "1"}, 0).name for text in texts]
    assert len(set(names)) == len(texts)
    pattern = next(one.pattern for one in RunSettings.model_fields["name"].metadata if hasattr(one, "pattern"))
    assert all(re.fullmatch(pattern, name) and len(name) <= 100 for name in names)
    assert Trial({"staleness.max": "1", "label.max": "2"}, 0).name == "staleness.max-1_label.max-2_seed-0"
    assert Trial({"train.seed": "5"}, 0).name == "seed-5"


def test_an_impossible_point_is_named_and_the_others_are_not() -> None:
    plan = plan_of("--over", "staleness.max=0,1", "--over", "staleness.pipeline_depth=1")
    found = impossible(plan, plan.trials(), root="/sweeps/cpu")
    assert list(found) == ["max-0_pipeline_depth-1_seed-0"]
    assert "staleness.pipeline_depth must be at most staleness.max = 0" in found["max-0_pipeline_depth-1_seed-0"]


def test_the_text_of_a_drawn_number_is_the_same_number_again() -> None:
    plan = plan_of(
        "--over", "train.lr=1e-6..1e-4", "--over", "staleness.max=1,2", "--search", "optuna", "--trials", "3"
    )
    assert numbers_of(plan, {"train.lr": "2.5e-05", "staleness.max": "2"}) == {"train.lr": 2.5e-5, "staleness.max": "2"}
    assert float(Range(1e-6, 1.23456789e-4, log=False, whole=False).text(1.23456789e-4)) <= 1.23456789e-4


def test_a_trial_reserves_whole_cores() -> None:
    words = ["cpu", "--rollout.cpus-per-actor", "0.25", "--learner.cpus-per-rank", "1"]
    assert room_of(parse_config(SweepKeys, words, command="sweep").settings)["CPU"] == 2
    assert room_of(BASE)["CPU"] == 2


def test_a_trial_reserves_the_gpus_on_which_its_processes_have_room() -> None:
    def gpus(*words: str) -> float:
        keys = ["cpu", "--rule", "majority_vote", "--learner.gpus-per-rank", "0.6", *words]
        return room_of(parse_config(SweepKeys, keys, command="sweep").settings)["GPU"]

    assert gpus("--rollout.gpus-per-actor", "0.4") == 1.0
    assert gpus("--rollout.gpus-per-actor", "0.25", "--rollout.policy-actors", "2") == 2.0
    assert (
        gpus("--rollout.gpus-per-actor", "0.6", "--rollout.policy-actors", "2") == 3.0
    )  # 1.8 in all, and no two share one


def test_trials_fit_as_often_as_their_processes_have_room_on_single_nodes() -> None:
    nodes = [{"CPU": 4.0, "GPU": 3.0}, {"CPU": 4.0, "GPU": 3.0}]
    assert copies(nodes, [{"CPU": 1, "GPU": 1}], 100) == 6
    assert copies(nodes, [{"CPU": 1, "GPU": 2}], 100) == 2
    assert copies(nodes, [{"CPU": 1, "GPU": 2}, {"CPU": 1, "GPU": 1}], 100) == 2
    assert copies(nodes, [{"CPU": 1, "GPU": 0.6}], 100) == 6
    assert copies(nodes, [{"CPU": 1, "GPU": 0.5}], 100) == 8  # by its CPUs
    assert copies(nodes, [{"CPU": 1, "GPU": 0.5}], 3) == 3
    assert copies(nodes, [{"CPU": 3}], 100) == 2
    assert copies([*nodes, {"CPU": 8.0, "here": 2.0}], [{"CPU": 1, "here": 1}], 100) == 2
    assert copies(nodes, [{"CPU": 5}], 100) == 0


@pytest.mark.parametrize("search", ["grid", "random", "optuna"])
def test_the_words_of_a_job_make_the_same_plan(search: str) -> None:
    more = [] if search == "grid" else ["--trials", "3", "--search", search]
    arguments = parse_sweep(SweepKeys, ["cpu", "--over", "staleness.max=1,2", "--seeds", "2", *more], command="sweep")
    again = parse_sweep(SweepKeys, ["cpu", *arguments.words()], command="sweep")
    assert again.plan() == arguments.plan()
    assert again.folder.path == arguments.folder.path
