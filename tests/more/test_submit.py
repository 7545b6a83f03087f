"""`corewarding submit` against a real cluster, from another working directory."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from corewarding.dataflow import plugins
from corewarding.launch.commands.submit import CONFIG_NAME, prepare
from corewarding.launch.config.load import make_config
from tests.more.cluster import SMALL, cluster_of, environment, free_port, small

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard's address of a cluster with token authentication."""
    with cluster_of(tmp_path_factory.mktemp("cluster"), environment()) as address:
        yield address


def command_of(cluster: str, *words: str) -> list[str]:
    return [sys.executable, "-m", "corewarding.launch.cli", "submit", "cpu", "--address", cluster, *words]


def submit(cluster: str, cwd: Path, *words: str, **changed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_of(cluster, *words), cwd=cwd, env=environment() | changed, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("changed", [{"HOME": "/nowhere"}, {"RAY_AUTH_TOKEN": "another-clusters-token-0123456789"}])
def test_a_missing_or_wrong_token_is_one_message(cluster: str, tmp_path: Path, changed: dict[str, str]) -> None:
    done = submit(cluster, tmp_path, "--dry-run", **changed)
    assert done.returncode == 2
    assert "does not let us in" in done.stderr
    assert "RAY_AUTH_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cluster_of_another_ray_is_refused(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from corewarding.dataflow.errors import UserError
    from corewarding.launch.commands.submit import connect

    monkeypatch.setattr(ray, "__version__", "2.0.0")
    with pytest.raises(UserError, match=r"runs Ray .*, this is Ray 2\.0\.0: install the same version"):
        connect(cluster)


def test_a_job_trains_follows_its_log_and_leaves_its_run_where_the_user_is(cluster: str, tmp_path: Path) -> None:
    done = submit(cluster, tmp_path, *SMALL, "--run.root", "mine", "--run.name", "job")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.startswith("ray job submit --address")
    assert "update    2/2" in done.stdout
    summary = json.loads((tmp_path / "mine" / "job" / "summary.json").read_text())
    assert summary["updates"] == 2


def test_the_printed_line_can_be_pasted_into_a_shell(cluster: str, tmp_path: Path) -> None:
    changed = {"XDG_CACHE_HOME": str(tmp_path / "my cache"), "HF_TOKEN": "hf-secret"}
    done = submit(cluster, tmp_path, "--dry-run", "--run.root", str(tmp_path / "mine"), **changed)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    line = done.stdout.splitlines()[0]
    assert "hf-secret" not in line
    env = environment() | {"HF_TOKEN": "hf-secret"}
    pasted = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert pasted.returncode == 0, pasted.stdout[-3000:] + pasted.stderr[-3000:]
    assert "nothing was started; the configuration can run here" in pasted.stdout
    assert not (tmp_path / "mine").exists()


def test_a_stopped_job_saves_its_last_update_and_goes_on_when_submitted_again(cluster: str, tmp_path: Path) -> None:
    words = small(run__root="mine", run__name="stopped", train__updates=30)
    job = subprocess.Popen(
        command_of(cluster, *words), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert job.stdout is not None
    stop = next(line for line in job.stdout if "stop it with: " in line).split("stop it with: ")[1].split()
    said = [next(line for line in job.stdout if "update    2/30" in line)]
    subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", *stop[1:]], env=environment(), check=True, capture_output=True
    )
    said += list(job.stdout)
    assert job.wait(120) == 143, said
    assert any("SIGTERM after update" in line for line in said), said
    done = submit(cluster, tmp_path, *words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "mine" / "stopped" / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows if row["kind"] == "update"] == list(range(1, 31))


def test_the_exit_code_of_the_job_is_passed_on(cluster: str, tmp_path: Path) -> None:
    done = submit(cluster, tmp_path, "--dry-run", "--learner.gpus-per-rank", "1")
    assert done.returncode == 2, done.stdout[-3000:]
    assert "the cluster lacks 1 GPU" in done.stdout


def test_no_cluster_is_one_message(tmp_path: Path) -> None:
    done = submit(f"http://127.0.0.1:{free_port()}", tmp_path, "--dry-run")
    assert done.returncode == 2
    assert "no Ray cluster answers at" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("fresh_tables")
def test_what_is_sent_is_small_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", "/models")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("SECRET_OF_THE_LAPTOP", "1")
    (tmp_path / "pairs.jsonl").write_text("")
    (tmp_path / "mine.py").write_text("# a plug-in")
    content = {"data": {"kind": "files", "train": "pairs.jsonl"}, "run": {"root": "runs"}, "plugins": ["mine.py"]}
    config = make_config(content, where="test")
    folder = tmp_path / "sent"
    folder.mkdir()
    job = prepare(config, folder, address="http://head:8265")
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 8 * 2**20
    assert not {".git", "runs", "tests", ".venv", "docs"} & {path.name for path in folder.iterdir()}
    kept = {"HF_HOME": "/models", "HF_TOKEN": "hf_secret"}
    assert job.env_vars == kept | {"RAY_JOB_STOP_WAIT_TIME_S": "50"}  # run.grace_s, and as long as Ray may take to end
    assert "/models" in job.command()
    assert "hf_secret" not in job.command()
    shipped = folder / plugins.SHIPPED.name / plugins.shipped_name(str(tmp_path / "mine.py"))
    assert shipped.read_text() == "# a plug-in"
    sent = (folder / CONFIG_NAME).read_text()
    assert str(tmp_path / "pairs.jsonl") in sent
    assert f"root: {tmp_path / 'runs'}" in sent
    assert "path: models/arithmetic-base" in sent
