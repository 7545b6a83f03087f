"""Submits a run, or with --over a sweep, as a job to a Ray cluster, follows its log and returns its exit code.

The command stands for one `ray job submit` line, which it prints, and which can be pasted into a shell later. It adds: a small working
directory (our package with its recipes and model, the configuration and plug-in files; no data, runs, environments or .git), absolute
paths in the configuration, because a job starts in a temporary folder, and an explicit list of environment variables. The working
directory stays in the user's cache until the next submission of the same run.name. Secrets are masked in what is printed and in the
configuration; they go along in a file of their own (launch/config/secrets.py).
"""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import os
import shlex
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
import yaml

from corewarding.dataflow import plugins
from corewarding.dataflow.errors import RunError, UserError
from corewarding.launch.config.addresses import problem_of
from corewarding.launch.config.paths import PACKAGE
from corewarding.launch.config.secrets import is_secret, masked, write_secrets
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.plain import plain, say
from corewarding.launch.run.ending.stopping import ENDING_S
from corewarding.launch.sweep.arguments import SweepKeys, parse_sweep

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
ANSWER_S = 10.0
"""How long a dashboard may take for its first answer."""
_DATA_KEYS = ("train", "rephrased", "heldout")


@dataclass(frozen=True)
class SubmitArguments(SweepKeys):
    """Submits a run, or with --over or --seeds a sweep, as a job to a Ray cluster, follows its log and returns its exit code."""

    address: str | None = None
    """The cluster's dashboard, for example http://head:8265; None: RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265."""
    python: str = "python"
    """Interpreter on the cluster that has our dependencies."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Run the checks as a job on the cluster, start no training."""

    @property
    def entry(self) -> list[str]:
        """The command that the job runs, with its words after the configuration."""
        return ["sweep", *self.words()] if self.over or self.seeds is not None else ["train"]


def run(words: list[str]) -> int:
    if "--watch" in words:
        raise UserError(
            "--watch shows a run of this machine, and a job runs on the cluster: leave it out; `corewarding view RUN --follow` shows "
            "the run where its folder is"
        )
    arguments = parse_sweep(SubmitArguments, words, command="submit")
    if arguments.entry != ["train"]:
        arguments.plan()
    return submit(
        arguments.settings,
        address=arguments.address,
        python=arguments.python,
        dry_run=arguments.dry_run,
        entry=arguments.entry,
    )


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
        """The `ray job submit` line that does the same. In place of a secret stands its environment variable."""
        names = {name: f"@{name}@" for name in self.env_vars if is_secret(name)}
        env = shlex.quote(json.dumps({"env_vars": self.env_vars | names}))
        for name, place in names.items():
            env = env.replace(place, f"'\"${name}\"'")  # ends the quotation, so that the shell fills it in
        ray = "ray" if shutil.which("ray") else str(Path(sys.executable).with_name("ray"))
        return (
            f"{shlex.quote(ray)} job submit --address {shlex.quote(self.address)} --working-dir "
            f"{shlex.quote(str(self.working_dir))} --runtime-env-json {env} -- {self.entrypoint}"
        )


def prepare(
    config: TrainConfig,
    folder: Path,
    *,
    address: str,
    python: str = "python",
    dry_run: bool = False,
    entry: Sequence[str] = ("train",),
) -> Submission:
    """Fills `folder` with the package and the configuration.

    python: interpreter on the cluster that has our dependencies. entry: the command, and its words after the configuration.
    """
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    for plugin in filter(plugins.is_file, config.plugins):
        (folder / plugins.SHIPPED.name).mkdir(exist_ok=True)
        shutil.copy(plugin, folder / plugins.SHIPPED.name / plugins.shipped_name(plugin))
    content = _absolute(config.model_dump(mode="json"))
    (folder / CONFIG_NAME).write_text(yaml.safe_dump(masked(content, logins=False), sort_keys=False), encoding="utf-8")
    write_secrets(content, folder)
    words = [python, "-m", "corewarding.launch.cli", entry[0], CONFIG_NAME, *entry[1:]]
    words += ["--dry-run"] if dry_run else []
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    ending_s = ENDING_S * (1 if entry[0] == "train" else 2)  # a sweep ends after its trials
    env["RAY_JOB_STOP_WAIT_TIME_S"] = (
        f"{math.ceil(config.run.grace_s + ending_s)}"  # else `ray job stop` kills after 3 s
    )
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


def submit(
    config: TrainConfig,
    *,
    address: str | None,
    python: str = "python",
    dry_run: bool = False,
    entry: Sequence[str] = ("train",),
) -> int:
    """Submits the job, follows its log and returns its exit code."""
    where = address or os.environ.get("RAY_API_SERVER_ADDRESS") or "http://127.0.0.1:8265"
    where = where if "://" in where else f"http://{where}"
    client = connect(where)
    job = prepare(config, _job_folder(config.run.name), address=where, python=python, dry_run=dry_run, entry=entry)
    say(job.command())
    return asyncio.run(_follow(client, job))


def _job_folder(name: str) -> Path:
    """An empty folder in the user's cache, for this user only."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "corewarding" / "jobs" / name
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error.strerror}; set XDG_CACHE_HOME to a folder for the job's files"
        ) from error
    return folder


def connect(address: str) -> JobSubmissionClient:
    """A client of the cluster. UserError with the remedy if nothing answers, the token is wrong or its Ray has another version."""
    if problem := problem_of(address) or _no_dashboard(address):
        raise UserError(
            f"no Ray cluster answers at {address}: it {problem}. --address or RAY_API_SERVER_ADDRESS names the dashboard "
            "(port 8265 by default); `ray start --head` starts a cluster"
        )
    import ray
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
        client.list_jobs()  # the first request that a cluster with token authentication may refuse
    except AuthenticationError as error:
        raise UserError(
            f"the Ray cluster at {address} does not let us in: {error.message.splitlines()[0]} Its token is in ~/.ray/auth_token "
            "on the machine that started it; put the same text into that file here, or into RAY_AUTH_TOKEN"
        ) from error
    except (ConnectionError, RuntimeError) as error:  # RuntimeError: Ray's only word for an answer that is not 200
        raise UserError(f"the Ray cluster at {address} (--address) does not take jobs: {error}") from error
    theirs = getattr(client, "_server_ray_version", ray.__version__)
    if theirs != ray.__version__:
        raise UserError(
            f"the cluster at {address} runs Ray {theirs}, this is Ray {ray.__version__}: install the same version"
        )
    return client


def _no_dashboard(address: str) -> str | None:
    """What shows that the service at `address` is no dashboard of Ray; None if it may be one."""
    try:
        urllib.request.urlopen(f"{address.rstrip('/')}/api/version", timeout=ANSWER_S).close()
    except urllib.error.HTTPError as error:
        return f"is a web server without Ray's API (HTTP {error.code})" if error.code in (404, 405, 501) else None
    except TimeoutError:
        return f"does not answer within {ANSWER_S:g} s"
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError) as error:
        return f"does not speak HTTP ({error})"
    return None


async def _follow(client: JobSubmissionClient, job: Submission) -> int:
    import aiohttp

    job_id = await start_job(client, job)
    say(f"job {job_id}; stop it with: ray job stop --address {job.address} {job_id}")
    try:
        async for lines in client.tail_job_logs(job_id):
            print(plain(lines), end="", flush=True)
        info = client.get_job_info(job_id)
    except (aiohttp.ClientError, ConnectionError, RuntimeError) as error:
        raise RunError(
            f"the connection to {job.address} is lost ({error}), and the job may go on; follow it with: "
            f"ray job logs --follow --address {job.address} {job_id}"
        ) from error
    if str(info.status) == "STOPPED":  # Ray keeps no exit code of such a job
        say(f"job {job_id} was stopped by `ray job stop`")
        return 128 + signal.SIGTERM
    if info.driver_exit_code is None:
        raise RunError(f"job {job_id} ended as {info.status} before its program ran: {info.message}")
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
