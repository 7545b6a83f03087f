"""Trials share GPUs and nodes by what they need. Real Ray and Tune, whose GPUs are stated and not there: the trials' programs end
with that word, after each has written which GPU it was given."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import ray
from ray.cluster_utils import Cluster

from corewarding.launch.config.load import make_config
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.run.placement import NO_ROOM
from corewarding.launch.sweep.arguments import SweepKeys, parse_sweep
from corewarding.launch.sweep.folder import SweepFolder
from corewarding.launch.sweep.places import Places
from corewarding.launch.sweep.tuning import run_trials
from tests.more.cluster import cluster_of, environment, free_port, small
from tests.ray_token import a_token

pytestmark = pytest.mark.timeout(1000)
PATIENCE_S = 900
"""Two trials one after the other, on a machine that others use."""
MEETS = """
    import json, os, sys, time
    from pathlib import Path

    if "train" in sys.argv:  # the program of a trial, not the sweep or Tune
        folder = Path(__file__).with_name("given")
        mine = folder / str(os.getpid())
        whole = mine.with_suffix(".written")
        whole.write_text(json.dumps([os.environ.get("CUDA_VISIBLE_DEVICES"), time.time()]))
        whole.rename(mine)
        deadline = time.monotonic() + 120
        while len([one for one in folder.iterdir() if not one.suffix]) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        met = len([one for one in folder.iterdir() if not one.suffix])
        (folder / f"{os.getpid()}.met").write_text(str(met))
"""


def with_gpus(**rollout: float) -> TrainConfig:
    """A rule without a teacher: one rank on the CPU and one actor."""
    return make_config({"rule": "majority_vote", "rollout": rollout, "learner": {"cpus_per_rank": 1}}, where="test")


@pytest.fixture
def two_gpus() -> Iterator[None]:
    ray.init(num_cpus=4, num_gpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("two_gpus")
def test_two_trials_with_a_gpu_each_run_at_once_on_two_gpus(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    plugin = tmp_path / "meets.py"
    plugin.write_text(dedent(MEETS))
    keys = ["--rollout.gpus-per-actor", "1", "--learner.gpus-per-rank", "0", "--rollout.cpus-per-actor", "0.5"]
    words = ["cpu", "--rule", "majority_vote", *keys, "--learner.cpus-per-rank", "0.5", "--plugins", str(plugin)]
    more = ["--over", "rollout.policy_actors=1,3", "--seeds", "2", "--root", str(tmp_path), "--name", "s"]
    arguments = parse_sweep(SweepKeys, [*words, *more], command="sweep")
    plan, folder = arguments.plan(), arguments.folder
    folder.open(plan)
    assert run_trials(plan, folder.path, plan.trials()) is None
    found = [json.loads(path.read_text()) for path in given.iterdir() if not path.suffix]
    assert sorted(gpu for gpu, _ in found) == ["0", "1"], "two trials with one GPU each"
    assert [path.read_text() for path in given.glob("*.met")] == ["2", "2"], "each has seen the other run"
    reasons = {record.trial.name: record.reason for record in folder.records()}
    assert len(reasons) == 4
    for seed in (0, 1):
        assert "it needs 3 GPU, and there are 2" in reasons[f"policy_actors-3_seed-{seed}"]
        assert "GPU" in reasons[f"policy_actors-1_seed-{seed}"], "no such GPU is in this machine"


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A head without GPUs, and two nodes with three each."""
    with a_token():
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=8, num_gpus=3)
            monkeypatch.setenv("RAY_ADDRESS", cluster.address)
            ray.init(address=cluster.address, log_to_driver=False)
            yield
        finally:
            ray.shutdown()
            cluster.shutdown()


@pytest.mark.usefixtures("nodes")
def test_as_many_trials_run_at_once_as_the_nodes_hold() -> None:
    assert Places([with_gpus(gpus_per_actor=1)]).at_once == 6
    assert Places([with_gpus(gpus_per_actor=2)]).at_once == 2, "six GPUs, and an actor of two needs both on one node"
    assert Places([with_gpus(gpus_per_actor=0.5), with_gpus(gpus_per_actor=3)]).at_once == 2
    assert Places([with_gpus(gpus_per_actor=0.6)]).at_once == 6, "0.4 of a GPU is left of each"
    places = Places([with_gpus(gpus_per_actor=4)])
    assert places.at_once == 1
    assert NO_ROOM in (places.lacking(with_gpus(gpus_per_actor=4)) or "")
    assert "7 GPU, and there are 6" in (places.lacking(with_gpus(gpus_per_actor=7)) or "")
    assert places.lacking(with_gpus(gpus_per_actor=3)) is None


HOLDS = """
    import ray, sys, time
    from ray.util.placement_group import placement_group

    ray.init(address=sys.argv[1], log_to_driver=False)
    ray.get(placement_group([{"CPU": 1}]).ready())
    print("held", flush=True)
    time.sleep(3600)
"""


def test_a_trial_waits_for_room_that_another_one_has(tmp_path: Path) -> None:
    """The cluster has two CPUs, of which another job holds one: both trials start, and one has to wait for the other's end."""
    env, port = environment(), free_port()
    with cluster_of(tmp_path, env, head_port=port):
        env = env | {"RAY_ADDRESS": f"127.0.0.1:{port}"}
        job = [sys.executable, "-c", dedent(HOLDS), env["RAY_ADDRESS"]]
        other = subprocess.Popen(job, env=env, stdout=subprocess.PIPE, text=True)
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            command = [sys.executable, "-m", "corewarding.launch.cli", "sweep", "cpu", *small(), "--seeds", "2"]
            done = subprocess.run(
                command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=PATIENCE_S
            )
        finally:
            other.kill()
            other.wait()
    folder = SweepFolder(tmp_path / "sweeps" / "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [record.status for record in folder.records()] == ["finished", "finished"]
    logs = [path.read_text() for path in folder.trials.glob("*.log")]
    assert any(NO_ROOM in log for log in logs), "the second trial met the first"
    assert os.listdir(folder.path).count("front.png") == 1
