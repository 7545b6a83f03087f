"""The content of the page: ages as the run's own metric counts them, alarms by the run's settings, groups by seed."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from corewarding.launch.view.live.groups import group_name, grouped
from corewarding.launch.view.live.live import LiveRun, board
from corewarding.launch.view.run import ViewedRun
from tests.sampled_run import SampledRun


def metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(
        json.dumps({"update": at, "kind": "update", "time_s": 1.0, **row}) + "\n"
        for at, row in enumerate(rows, start=1)
    )
    (folder / "metrics.jsonl").write_text(text)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewedRun]:
    folder = tmp_path_factory.mktemp("runs") / "one"
    SampledRun(folder, updates=3).make(3)
    with contextlib.closing(ViewedRun(folder, folder / "journal")) as found:
        found.read()
        yield found


def test_ages_count_questions_by_their_oldest_trained_token(run: ViewedRun) -> None:
    found = LiveRun(run).content()
    # the sampled run starts every completion with the weights before the newest: version 0, 0 and 1
    assert found["ages"] == [[1, [[0, 4]]], [2, [[1, 4]]], [3, [[1, 4]]]]


def test_a_collapse_is_an_alarm_by_the_settings_of_the_run(run: ViewedRun) -> None:
    metrics(run.run_dir.path, [{"vote/no_answer_frac": value} for value in (0.1, 0.1, 0.1, 0.9, 0.9, 0.9)])
    found = LiveRun(run).content()
    (alarm,) = [one for one in found["alarms"] if one["tag"]]
    assert (alarm["level"], alarm["tag"], alarm["update"]) == ("bad", "vote/no_answer_frac", 6)
    assert "collapse.no_answer_frac 0.6" in alarm["text"]
    assert found["thresholds"] == {"vote/no_answer_frac": 0.6}
    metrics(run.run_dir.path, [{"vote/no_answer_frac": value} for value in (0.5, 0.5, 0.5, 0.9, 0.9, 0.9, 0.1)])
    found = LiveRun(run).content()
    assert [one["level"] for one in found["alarms"] if one["tag"]] == ["past"]
    assert found["thresholds"] == {"vote/no_answer_frac": 0.7}  # 0.5 at the start, and collapse.rise 0.2


def test_how_a_run_ended_comes_first(run: ViewedRun) -> None:
    assert LiveRun(run).content()["alarms"][0]["title"] == "the run was interrupted"
    run.run_dir.failure.write_text("learner rank 0 died\n")
    (first, *_) = LiveRun(run).content()["alarms"]
    assert (first["level"], first["title"], first["text"]) == ("bad", "the run failed", "learner rank 0 died")
    run.run_dir.failure.unlink()


def test_what_has_not_changed_is_not_sent_again(run: ViewedRun) -> None:
    live = LiveRun(run)
    stamp = live.content()["stamp"]
    assert live.content(known=stamp) == {"stamp": stamp}
    assert "curves" in live.content(known=stamp, updates=3)
    metrics(run.run_dir.path, [{"reward/mean": 0.5}])
    assert live.content(known=stamp)["curves"] == {"reward/mean": [[1, 0.5]]}


def test_a_metric_of_a_plug_in_has_a_curve(run: ViewedRun) -> None:
    metrics(run.run_dir.path, [{"reward/mean": 0.5, "<b>mine</b>": 3.0}])
    found = LiveRun(run).content()
    assert found["others"] == ["<b>mine</b>"]
    assert found["curves"]["<b>mine</b>"] == [[1, 3.0]]


def test_runs_that_differ_in_the_seed_alone_are_one_group(run: ViewedRun) -> None:
    one = yaml.safe_load(run.run_dir.config.read_text())
    other = one | {"train": one["train"] | {"seed": 7}, "run": {"name": "other"}}
    third = one | {"train": one["train"] | {"seed": 7, "updates": 4}}
    assert grouped({"a": one, "b": other, "c": third, "d": third, "e": {}, "f": {}}) == [
        ["a", "b"],
        ["c", "d"],
        ["e"],
        ["f"],
    ]
    assert group_name(["max=1,seed-0", "max=1,seed-1"]) == "max=1, (2 seeds)"
    assert (group_name(["one"]), group_name(["a", "b"])) == ("one", "a (2 seeds)")
    assert board([run])["groups"] == [{"name": "one", "runs": ["one"]}]


def test_a_number_outside_its_healthy_range_for_three_updates_is_a_warning(run: ViewedRun) -> None:
    metrics(run.run_dir.path, [{"correction/ess_frac": value} for value in (0.99, 0.8, 0.8)])
    assert [one for one in LiveRun(run).content()["alarms"] if one["tag"]] == []
    metrics(run.run_dir.path, [{"correction/ess_frac": value} for value in (0.99, 0.8, 0.8, 0.7)])
    (warning,) = [one for one in LiveRun(run).content()["alarms"] if one["tag"]]
    assert (warning["level"], warning["update"]) == ("warn", 4)
    assert warning["text"].startswith("correction/ess_frac 0.7; healthy: above 0.9;")


def test_the_bounds_are_those_of_the_configuration(run: ViewedRun) -> None:
    config = run.run_dir.config
    saved = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump(saved | {"staleness": {"max": 3}, "label": {"max_staleness": 8}}))
    of_questions = dict.fromkeys(("staleness/question", "staleness/question_mean", "staleness/max"), 3)
    assert LiveRun(run).content()["bounds"] == of_questions | {"staleness/label_mean": 8}
    changing = {"staleness": {"max": 3}, "schedules": {"staleness.max": {10: 4}}}
    config.write_text(yaml.safe_dump(saved | changing))
    assert LiveRun(run).content()["bounds"] == {}
    config.write_text(yaml.safe_dump(saved))
