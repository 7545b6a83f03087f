"""Small pipelines whose times are worked out by hand, and rates out of made-up times."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from corewarding.launch.config.load import load_config, make_config
from corewarding.launch.plan.gpus import GPUS
from corewarding.launch.plan.measured import Load, RatesError, Running, Sampled, line, rates_of, step_line
from corewarding.launch.plan.model import shape_on_meta, sized
from corewarding.launch.plan.simulation import Device, Group, Rates, Simulation, System
from corewarding.launch.plan.speed import devices_of, forecast, publication_bytes, stated_rates, system_of
from corewarding.learner.replay.admission import AdmissionLimits

RATES = Rates(
    update_s=5.0, token_s=0.0, step_s=1.0, sequence_s=0.0, publish_s=1.0, acknowledge_s=1.0, turn_s=0.0,
    lengths={"policy": (10,), "teacher": (10,)}, prompts=(3,),
)  # fmt: skip
OWN = {"learner": Device("learner"), "policy": Device("policy"), "teacher": Device("teacher")}


def system(*, depth: int, slots: int = 1, devices: dict[str, Device] = OWN) -> System:
    """One question of one completion per update."""
    return System(
        limits=AdmissionLimits(questions_per_update=1, total_updates=20, staleness_max=max(1, depth), depth=depth),
        groups=(Group(source="policy", size=1, trained=1),),
        actors={"policy": 1},
        slots=slots,
        ranks=1,
        devices=devices,
    )


def test_in_turns() -> None:
    """10 s of sampling, 5 s of update, 1 s until the engine has the weights."""
    found = Simulation(system(depth=0), RATES).forecast(warm_up=4)
    assert found.updates_per_s == pytest.approx(1 / 16)
    assert found.wait_s == pytest.approx(10)
    assert found.learner_idle == pytest.approx(10 / 16)
    assert found.engines_idle == {"policy": pytest.approx(6 / 16)}
    assert found.staleness_mean == 0
    assert found.completions_per_s == pytest.approx(1 / 16)
    assert found.tokens_per_s == {"policy": pytest.approx(10 / 16)}


def test_one_update_ahead_the_slower_side_sets_the_pace() -> None:
    """The engine always has a question, 10 s each, and starts it with the weights of the update before the last one. Only in the last
    of the 16 updates that are counted it has none, for 5 s."""
    found = Simulation(system(depth=1), RATES).forecast(warm_up=4)
    assert found.updates_per_s == pytest.approx(1 / 10)
    assert found.engines_idle == {"policy": pytest.approx(5 / 160)}
    assert found.staleness_mean == 1
    slow = dataclasses.replace(RATES, update_s=30.0)
    found = Simulation(system(depth=1), slow).forecast(warm_up=4)
    assert found.updates_per_s == pytest.approx(1 / 31)
    assert found.learner_idle == 0


def test_one_core_for_both_does_their_work_after_each_other() -> None:
    """When the fourth update ends, half of the next question is sampled: 16 updates of 5 s and 15.5 questions of 10 s remain."""
    devices = dict.fromkeys(OWN, Device("cores", 1.0))
    found = Simulation(system(depth=1, devices=devices), RATES).forecast(warm_up=4)
    assert found.updates_per_s == pytest.approx(16 / 235)


def test_a_step_takes_longer_with_more_sequences_and_an_update_with_more_tokens() -> None:
    """Two completions of 10 tokens in steps of 1 + 2 x 0.5 s; 3 prompt tokens and 20 of completions, 0.1 s each."""
    rates = dataclasses.replace(RATES, update_s=0.0, token_s=0.1, sequence_s=0.5)
    two = dataclasses.replace(system(depth=0, slots=2), groups=(Group(source="policy", size=2, trained=2),))
    found = Simulation(two, rates).forecast(warm_up=4)
    assert found.updates_per_s == pytest.approx(1 / (20 + 2.3 + 1))
    assert found.update_s == pytest.approx(2.3)


def test_a_publication_every_second_update() -> None:
    """Both questions of two updates are sampled by the same weights, the second is one update old."""
    limits = AdmissionLimits(questions_per_update=1, total_updates=20, staleness_max=1, depth=1, publish_every=2)
    every = dataclasses.replace(system(depth=1, slots=2), limits=limits)
    assert Simulation(every, RATES).forecast(warm_up=4).staleness_mean == pytest.approx(0.5)


def test_work_is_the_time_with_a_core() -> None:
    """Two cores, three busy from 10 to 16: each has two thirds of one."""
    load = Load([[(0.0, 20.0)], [(5.0, 16.0)], [(10.0, 30.0)]], Device("cores", 2.0))
    assert load.work_s(0, 10) == pytest.approx(10)
    assert load.work_s(10, 16) == pytest.approx(4)
    assert load.work_s(8, 18) == pytest.approx(2 + 4 + 2)


def test_how_many_ran_beside_it() -> None:
    running = Running([(0.0, 10.0), (5.0, 10.0)])
    assert running.mean(0, 10) == pytest.approx(1.5)
    assert running.mean(5, 10) == pytest.approx(2)


def test_lines_through_measured_times() -> None:
    assert line([(100, 1.2), (200, 2.2)]) == pytest.approx((0.2, 0.01))
    assert line([(100, 1.0), (101, 1.01)]) == pytest.approx((0.0, 0.01))
    points = [
        Sampled(tokens=n, work_s=n * (0.01 + 0.001 * k), running=k) for n, k in ((10, 4.0), (20, 64.0), (8, 100.0))
    ]
    assert step_line(points) == pytest.approx((0.01, 0.001))


def test_a_folder_without_a_run_has_no_rates(tmp_path: Path) -> None:
    with pytest.raises(RatesError, match="is no run directory"):
        rates_of([tmp_path], cores=2)


def test_a_publication_holds_every_parameter_once() -> None:
    """co_rewarding_ii publishes to both channels, 8,190,735,360 parameters in 2 bytes each."""
    config = load_config("co_rewarding_ii")
    shape = shape_on_meta(sized(8e9)[1])
    assert publication_bytes(config, shape) == {"policy": 16_381_470_720, "teacher": 16_381_470_720}
    rates = stated_rates(config, shape, GPUS["H100"])
    assert rates.step_s == pytest.approx(16_381_470_720 / (0.6 * 3.35e12))
    assert rates.publish_s == pytest.approx(2 * 16_381_470_720 / 20e9)
    assert rates.acknowledge_s == pytest.approx(3 * 16_381_470_720 / 20e9)
    found = forecast(config, rates, cores=2, updates=4, warm_up=1)
    assert 10 < 1 / found.updates_per_s < 300
    assert found.staleness_mean <= config.staleness.max


def test_processes_share_what_the_configuration_says() -> None:
    config = make_config({"learner": {"cores": [1]}, "engine": {"cores": [0]}}, where="test")
    devices = devices_of(config, cores=2)
    assert devices["learner"].name != devices["policy"].name == devices["teacher"].name
    assert devices["policy"].share(2) == 0.5
    assert devices_of(load_config("one_gpu"), cores=2)["policy"] == Device("shared GPUs", 1.0)
    assert devices_of(load_config("qwen3_4b"), cores=2)["policy"].share(100) == 1.0
    assert [group.trained for group in system_of(load_config("cpu"), cores=2).groups] == [8, 0]
