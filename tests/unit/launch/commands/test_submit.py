"""What is submitted, the line that does the same, and a cluster that may not be there or may have just started."""

import json
import shlex
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from corewarding.dataflow.errors import UserError
from corewarding.launch.commands import submit
from corewarding.launch.commands.submit import CONFIG_NAME, Submission, connect, prepare, start_job
from corewarding.launch.config.load import load_config, make_config

JOB = Submission(address="http://head:8265", entrypoint="train", working_dir=Path("/tmp"), env_vars={})
BUSY = "Request failed with status code 500: No available agent to submit job, please try again later.."


class Client:
    """Answers as Ray's client does: an error for each of `refusals`, then a job id."""

    def __init__(self, *refusals: str) -> None:
        self.refusals = list(refusals)

    def submit_job(self, **_: Any) -> str:
        if self.refusals:
            raise RuntimeError(self.refusals.pop(0))
        return "job-1"


async def test_a_cluster_that_has_just_started_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "RETRY_S", 0.0)
    client: Any = Client(BUSY, BUSY)
    assert await start_job(client, JOB) == "job-1"
    assert client.refusals == []


@pytest.mark.parametrize(("refusal", "patience_s"), [(BUSY, -1.0), ("status code 400: working_dir is too large", 60.0)])
async def test_a_refused_job_is_one_message(monkeypatch: pytest.MonkeyPatch, refusal: str, patience_s: float) -> None:
    monkeypatch.setattr(submit, "START_S", patience_s)
    client: Any = Client(refusal, refusal)
    with pytest.raises(UserError, match=r"head:8265 does not take the job: .*status code"):
        await start_job(client, JOB)
    assert len(client.refusals) == 1


def test_the_printed_line_is_read_by_a_shell_as_it_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit.shutil, "which", lambda _: "/usr/bin/ray")  # as where the environment is activated
    env = {"HF_TOKEN": "hf-secret", "NCCL_DEBUG": 'it\'s "$HOME"'}
    folder = tmp_path / "my jobs"
    entrypoint = shlex.join(["python", "-m", "corewarding.launch.cli", "train", CONFIG_NAME])
    line = Submission(address="http://head:8265", entrypoint=entrypoint, working_dir=folder, env_vars=env).command()
    program, _, rest = line.partition(" ")  # `ray`, or its path where it is not on PATH
    assert Path(program).name == "ray"
    assert "hf-secret" not in line
    assert "\n" not in line
    shown = subprocess.run(
        ["sh", "-c", f'ray() {{ printf "%s\\n" "$@"; }}; ray {rest}'],
        env={"HF_TOKEN": "from-my-shell"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    words = shown.stdout.splitlines()
    assert words[:6] == ["job", "submit", "--address", "http://head:8265", "--working-dir", str(folder)]
    assert json.loads(words[7]) == {"env_vars": env | {"HF_TOKEN": "from-my-shell"}}
    assert words[8:] == ["--", *shlex.split(entrypoint)]


def test_secrets_go_along_in_a_file_of_their_own(tmp_path: Path) -> None:
    config = make_config({"engine": {"kind": "sglang", "api_key": "sk-1"}, "rule": "entropy"}, where="test")
    prepare(config, tmp_path, address="http://head:8265")
    assert "sk-1" not in (tmp_path / CONFIG_NAME).read_text()
    assert yaml.safe_load((tmp_path / CONFIG_NAME).read_text())["engine"]["api_key"] == "***"
    assert load_config(tmp_path / CONFIG_NAME).engine.api_key == "sk-1"


def test_what_answers_at_a_wrong_address_is_told_apart() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match=r"cannot be reached: .*8265 by default"):
            connect(f"http://127.0.0.1:{silent.getsockname()[1]}")
    for address, told in {
        "ray://head:10001": "must be like http://host:port",
        "http://no.invalid": "not known",
    }.items():
        with pytest.raises(UserError, match=told):
            connect(address)


def test_a_service_that_is_no_dashboard_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "ANSWER_S", 0.2)
    accepting = socket.create_server(("127.0.0.1", 0))  # and never answering
    with accepting, pytest.raises(UserError, match=r"does not answer within 0\.2 s"):
        connect(f"http://127.0.0.1:{accepting.getsockname()[1]}")
