"""Statistics of a run, with clocks by hand."""

import pytest

from corewarding.dataflow.spans import Span
from corewarding.launch.report.statistics import RunStatistics, UpdateTimes


def at(seconds):
    return 1000.0 + seconds


def times(asked, began, ended, published):
    return UpdateTimes(asked=at(asked), began=at(began), ended=at(ended), published=at(published))


def sampled(statistics, start, end, *, idle=None, mean=0.0, most=0.0):
    spans = [Span("policy-0", "sample a", start, (start + end) / 2), Span("policy-1", "sample b", start, end)]
    statistics.sampled(spans, idle=idle or {"policy": 0.0}, staleness_mean=mean, staleness_max=most)


def test_the_times_of_an_update_are_metrics_and_spans():
    one = times(1.0, 3.0, 7.0, 7.5)
    scalars = one.metrics().scalars
    assert scalars["time/learner_wait_s"] == 2.0
    assert scalars["time/update_s"] == 4.0
    assert scalars["time/publish_s"] == 0.5
    assert scalars["time/total_s"] == 6.5
    assert (scalars["time/update_started_s"], scalars["time/update_ended_s"]) == (1003.0, 1007.0)
    assert one.spans(5) == [Span("learner", "wait", 1001.0, 1003.0), Span("learner", "update 5", 1003.0, 1007.0)]


def test_overlap_is_the_share_of_the_updating_time_in_which_samples_were_made():
    statistics = RunStatistics()
    statistics.updated(times(0.0, 10.0, 14.0, 14.0), num_samples=8)
    statistics.updated(times(14.0, 20.0, 24.0, 24.0), num_samples=8)
    sampled(statistics, 1000.0, 1012.0)  # 2 s of the first update
    sampled(statistics, 1011.0, 1013.0)  # 1 s more: what overlaps counts once
    sampled(statistics, 1024.0, 1030.0)  # nothing of the second
    assert statistics.overlap_frac == pytest.approx(3.0 / 8.0)


def test_the_summary_adds_up_the_updates():
    statistics = RunStatistics()
    statistics.start()
    statistics.updated(times(0.0, 1.0, 3.0, 3.5), num_samples=8)
    statistics.updated(times(3.5, 4.0, 6.0, 6.25), num_samples=4)
    sampled(statistics, 0.0, 1.0, idle={"policy": 0.5, "teacher": 0.2}, mean=1.0, most=2.0)
    sampled(statistics, 1.0, 2.0, idle={"policy": 0.1, "teacher": 0.4}, mean=2.0, most=3.0)
    statistics.stop()
    summary = statistics.summary()
    assert summary["learner_update_s"] == 4.0
    assert summary["publish_s"] == 0.75
    assert summary["actors_idle_frac"] == {"policy": pytest.approx(0.3), "teacher": pytest.approx(0.3)}
    assert (summary["staleness_mean"], summary["staleness_max"]) == (1.5, 3.0)
    elapsed = summary["train_wall_s"]
    assert summary["completions_per_s"] == pytest.approx(12 / elapsed)
    assert summary["learner_idle_frac"] == pytest.approx(1.5 / elapsed)
    assert statistics.rates().scalars["throughput/completions_per_s"] == pytest.approx(12 / elapsed)


def test_a_run_without_an_update_has_a_summary():
    summary = RunStatistics().summary()
    assert summary["overlap_frac"] == summary["staleness_max"] == summary["staleness_mean"] == 0.0
    assert summary["actors_idle_frac"] == {}
