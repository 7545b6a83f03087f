"""The resources that a run needs, and what a node answers if it cannot take part."""

import pytest

from corewarding.launch.config.load import make_config
from corewarding.launch.run.ending import local_ray, own_ray
from corewarding.launch.run.placement import PlacementError, connect, probe_here, versions
from corewarding.launch.run.preflight.needs import bundles, needed, weight_backend


def test_every_process_has_a_bundle_and_their_sum_is_what_is_needed():
    config = make_config(
        {
            "rule": "co_rewarding_ii",
            "learner": {"ranks": 2, "cpus_per_rank": 1.5, "resources": {"training": 1}},
            "rollout": {"policy_actors": 3, "teacher_actors": 1, "cpus_per_actor": 0.5, "gpus_per_actor": 0.25},
        },
        where="test",
    )
    wanted = bundles(config)
    assert wanted["learner"] == [{"CPU": 1.5, "training": 1}] * 2
    assert wanted["policy"] == [{"CPU": 0.5, "GPU": 0.25}] * 3
    assert len(wanted["teacher"]) == 1
    assert needed(config) == pytest.approx({"CPU": 5.0, "GPU": 1.0, "training": 2.0})
    alone = make_config({"rule": "majority_vote"}, where="test")
    assert bundles(alone)["teacher"] == []


LATE = "The current node timed out during startup. This could happen because the GCS has become overloaded."


@pytest.mark.parametrize(
    ("failures", "attempts"), [([], 1), ([LATE], 2), ([LATE, LATE], 2), (["Ray's folder is full"], 1)]
)
def test_a_ray_that_was_too_slow_on_a_busy_machine_is_started_once_more(tmp_path, monkeypatch, failures, attempts):
    started, left = [], list(failures)

    def start(**options):
        started.append(options["num_cpus"])
        if left:
            raise Exception(left.pop(0))
        return tmp_path

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(own_ray, "start", start)
    config = make_config({"rule": "majority_vote"}, where="test")
    try:
        if failures in ([], [LATE]):
            connect(config)
            assert (tmp_path / local_ray.OWNER).exists()
        else:
            with pytest.raises(PlacementError, match=failures[-1]):
                connect(config)
        assert len(started) == attempts
    finally:
        local_ray.end_processes()


@pytest.mark.parametrize("changed", [{"python": "3.9.1"}, {"ray": "2.0.0"}])
def test_a_node_of_another_python_or_ray_says_so(tmp_path, changed):
    (tmp_path / "token").touch()
    assert probe_here(str(tmp_path / "token"), versions()) == ""
    said = probe_here(str(tmp_path / "token"), versions() | changed)
    assert next(iter(changed.values())) in said
    assert "install the same versions" in said


def test_a_node_that_does_not_see_the_run_folder_says_so(tmp_path):
    assert "a folder that all nodes share" in probe_here(str(tmp_path / "token"), versions())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rank", "actor", "backend"),
    [
        (0, 0, "gloo"),
        (1, 1, "nccl"),
        (0.5, 0.25, "ipc"),
        (0.5, 0.5, "gloo"),
        (0, 1, "gloo"),
        (1, 0.5, "gloo"),
        (2, 0, "gloo"),
    ],
)
def test_weights_go_by_nccl_between_gpus_and_by_ipc_within_one(rank, actor, backend):
    config = make_config(
        {"rule": "co_rewarding_ii", "learner": {"gpus_per_rank": rank}, "rollout": {"gpus_per_actor": actor}},
        where="test",
    )
    assert weight_backend(config) == backend  # of one learner rank, one policy and one teacher actor


def test_a_dead_ray_address_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(PlacementError, match=r"RAY_ADDRESS 127\.0\.0\.1:9 cannot be reached: .* or unset RAY_ADDRESS"):
        connect(make_config({}, where="test"))
