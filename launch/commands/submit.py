"""Submits a training run as a job to a Ray cluster, follows its log and returns its exit code.

The command stands for one `ray job submit` line, which it prints. It adds: a small working directory (our package with its recipes
and model, the configuration and plug-in files; no data, runs, environments or .git), absolute paths in the configuration, because a
job starts in a temporary folder, and an explicit list of environment variables.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
import yaml

from corewarding.dataflow import plugins
from corewarding.dataflow.errors import UserError
from corewarding.launch.config.command_line import ConfigArguments, parse_config
from corewarding.launch.config.paths import PACKAGE
from corewarding.launch.config.tree import TrainConfig

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

PASSED_ON = (
    "HF_HOME",
    "HF_TOKEN",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "NCCL_SOCKET_IFNAME",
    "GLOO_SOCKET_IFNAME",
    "NCCL_DEBUG",
)
CONFIG_NAME = "submitted.yaml"
RETRY_S, START_S = 1.0, 60.0
"""A cluster that has just started refuses jobs: pause between two attempts, and how long to try."""
_DATA_KEYS = ("train", "rephrased", "heldout")


@dataclass(frozen=True)
class SubmitArguments(ConfigArguments):
    """Submits a training run as a job to a Ray cluster, follows its log and returns its exit code."""

    address: str | None = None
    """The cluster's dashboard, for example http://head:8265; None: RAY_API_SERVER_ADDRESS, else this machine."""
    python: str = "python"
    """Interpreter on the cluster that has our dependencies."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Run the checks as a job on the cluster, start no training."""


def run(words: list[str]) -> int:
    arguments = parse_config(SubmitArguments, words, command="submit")
    return submit(arguments.settings, address=arguments.address, python=arguments.python, dry_run=arguments.dry_run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job, as Ray's client takes it."""

    address: str
    entrypoint: str
    working_dir: Path
    env_vars: dict[str, str]

    @property
    def runtime_env(self) -> dict[str, Any]:
        return {"working_dir": str(self.working_dir), "env_vars": self.env_vars}

    def command(self) -> str:
        """The `ray job submit` line that does the same; secrets are masked."""
        shown = {name: "***" if "TOKEN" in name else value for name, value in self.env_vars.items()}
        env = json.dumps({"env_vars": shown})
        return (
            f"ray job submit --address {shlex.quote(self.address)} --working-dir {shlex.quote(str(self.working_dir))} "
            f"--runtime-env-json {shlex.quote(env)} -- {self.entrypoint}"
        )


def prepare(
    config: TrainConfig, folder: Path, *, address: str, python: str = "python", dry_run: bool = False
) -> Submission:
    """Fills `folder` with the package and the configuration. python: interpreter on the cluster that has our dependencies."""
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    for plugin in filter(plugins.is_file, config.plugins):
        (folder / plugins.SHIPPED.name).mkdir(exist_ok=True)
        shutil.copy(plugin, folder / plugins.SHIPPED.name / plugins.shipped_name(plugin))
    content = _absolute(config.model_dump(mode="json"))
    (folder / CONFIG_NAME).write_text(yaml.safe_dump(content, sort_keys=False))
    words = [python, "-m", "corewarding.launch.cli", "train", CONFIG_NAME] + (["--dry-run"] if dry_run else [])
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return Submission(address=address, entrypoint=shlex.join(words), working_dir=folder, env_vars=env)


def _absolute(content: dict[str, Any]) -> dict[str, Any]:
    """The configuration with local paths made absolute, because the job runs in another folder. Hub ids and the shipped model stay."""

    def seen(path: str | None) -> str | None:
        return str(Path(path).resolve()) if path is not None and Path(path).exists() else path

    inside = (PACKAGE / content["model"]["path"]).exists() and not Path(content["model"]["path"]).is_absolute()
    if not inside:
        content["model"]["path"] = seen(content["model"]["path"])
    for key in _DATA_KEYS:
        content["data"][key] = seen(content["data"][key])
    content["engine"]["script"] = seen(content["engine"]["script"])
    return content


def submit(config: TrainConfig, *, address: str | None, python: str = "python", dry_run: bool = False) -> int:
    """Submits the job, follows its log and returns its exit code."""
    where = address or os.environ.get("RAY_API_SERVER_ADDRESS") or "http://127.0.0.1:8265"
    with tempfile.TemporaryDirectory(prefix="corewarding-") as folder:
        job = prepare(config, Path(folder), address=where, python=python, dry_run=dry_run)
        print(job.command(), flush=True)
        return asyncio.run(_follow(job))


def connect(address: str) -> JobSubmissionClient:
    """A client of the cluster. UserError with the remedy if nothing answers, the token is wrong or its Ray has another version."""
    import ray
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
        client.list_jobs()  # the first request that a cluster with token authentication may refuse
    except ConnectionError as error:
        raise UserError(
            f"no Ray cluster answers at {address} (--address or RAY_API_SERVER_ADDRESS; `ray start --head` starts one): {error}"
        ) from error
    except AuthenticationError as error:
        raise UserError(
            f"the Ray cluster at {address} does not let us in: {error.message.splitlines()[0]} Its token is in ~/.ray/auth_token "
            "on the machine that started it; put the same text into that file here, or into RAY_AUTH_TOKEN"
        ) from error
    theirs = getattr(client, "_server_ray_version", ray.__version__)
    if theirs != ray.__version__:
        raise UserError(
            f"the cluster at {address} runs Ray {theirs}, this is Ray {ray.__version__}: install the same version"
        )
    return client


async def _follow(job: Submission) -> int:
    client = connect(job.address)
    job_id = await start_job(client, job)
    print(f"job {job_id}; stop it with: ray job stop --address {job.address} {job_id}", flush=True)
    async for lines in client.tail_job_logs(job_id):
        print(lines, end="", flush=True)
    info = client.get_job_info(job_id)
    if info.driver_exit_code is None:
        raise UserError(f"job {job_id} ended as {info.status} before its program ran: {info.message}")
    return int(info.driver_exit_code)


async def start_job(client: JobSubmissionClient, job: Submission) -> str:
    """Starts the job and returns its id. A cluster that has just started cannot take a job for some seconds; this waits for it.

    UserError with the cluster's words if it refuses the job.
    """
    deadline = time.monotonic() + START_S
    while True:
        try:
            return client.submit_job(entrypoint=job.entrypoint, runtime_env=job.runtime_env)
        except RuntimeError as error:  # Ray's only word for an answer that is not 200
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise UserError(f"the Ray cluster at {job.address} does not take the job: {error}") from error
        await asyncio.sleep(RETRY_S)
