"""Ray for one run on one machine: no port is reachable from outside, and other users of the machine are kept out.

By default Ray listens on every interface, writes its token where every user of the machine may read it, and makes folders in which
every user may replace files. Here it stays on loopback, with a token that only the environment of the run's processes holds,
below a folder of this user alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray._private import node, ray_constants, services, utils
from ray._private.state import GlobalState
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # compiled, without stubs

from corewarding.dataflow.errors import UserError
from corewarding.launch.run.forked import worker_setup

_CONFIG = {
    "prestart_worker_first_driver": False,  # all processes of a run have environments of their own
    "worker_maximum_startup_concurrency": 64,  # they start together, also where they are more than the cores
}
_WITHOUT_METRICS = {"enable_metrics_collection": False}  # else a page of numbers for everyone who asks
_METRICS_EVERY_MS = 2000
LOOK_S, PAUSE_S = 20.0, 0.02
"""How long, and how often, the node is looked for."""
_HELPERS = ("start_monitor", "start_log_monitor", "start_api_server")
"""Methods of Ray's node that start programs which nobody asks."""


class OwnRayError(UserError):
    """The folder for Ray's files is not ours alone."""


def start(*, metrics_port: int | None = None, **options: Any) -> Path:
    """ray.init with these options, for this run alone. Returns the session's folder. OwnRayError if another user owns Ray's.

    metrics_port: of loopback, for a page of numbers that everyone on this machine may read; None: there is no such page.
    """
    agent = contextlib.nullcontext() if metrics_port is not None else _with_a_small_agent()
    with _on_loopback(), _with_a_token(), _without_helpers(), agent, _signals_kept(), _quickly():
        context: Any = ray.init(
            address="local",  # also where another cluster runs on this machine
            include_dashboard=False,
            _temp_dir=str(own_folder()),
            _metrics_export_port=metrics_port,
            _system_config=_CONFIG
            | (_WITHOUT_METRICS if metrics_port is None else {"metrics_report_interval_ms": _METRICS_EVERY_MS}),
            **options,
        )
    return Path(context.address_info["session_dir"])


def own_folder() -> Path:
    """The folder for the files of all Rays of this user, made if missing; other users cannot look into it.

    RAY_TMPDIR names another place than the system's. OwnRayError if it is a link or another user's.
    """
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / f"cw-ray-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise OwnRayError(
            f"{folder}, where Ray's files go, belongs to another user; set RAY_TMPDIR to a folder of your own"
        )
    folder.chmod(0o700)
    return folder


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """While Ray starts, it takes 127.0.0.1 for the machine's address, and so binds nothing else."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _without_helpers() -> Iterator[None]:
    """Ray starts three Python programs that a run on one machine never asks: the autoscaler's monitor, the reader of logs and the
    dashboard's server, for which it also waits. Without them it starts in half the time."""
    before = {name: getattr(node.Node, name) for name in _HELPERS}
    for name in _HELPERS:
        setattr(node.Node, name, lambda self, **_: None)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(node.Node, name, method)


@contextlib.contextmanager
def _with_a_small_agent() -> Iterator[None]:
    """Ray's agent on the node without its modules for metrics and profiles, as in a Ray that is installed without its dashboard."""
    before = utils.get_dashboard_dependency_error
    utils.get_dashboard_dependency_error = lambda: ImportError("not needed")
    try:
        yield
    finally:
        utils.get_dashboard_dependency_error = before


@contextlib.contextmanager
def _quickly() -> Iterator[None]:
    """Ray looks once a second whether its node is there; here it is asked until it is. And its processes start by a small program."""
    before = services.get_node, ray_constants.SETUP_WORKER_FILENAME
    services.get_node = partial(_node_once_there, services.get_node)
    ray_constants.SETUP_WORKER_FILENAME = os.path.abspath(worker_setup.__file__)
    try:
        yield
    finally:
        services.get_node, ray_constants.SETUP_WORKER_FILENAME = before


def _node_once_there(before: Callable[[str, str], Any], gcs_address: str, node_id: str) -> Any:
    """What `before` returns, which waits a second where the node is not there yet."""
    state, until = GlobalState(), time.monotonic() + LOOK_S
    state._initialize_global_state(services._get_gcs_client_options(gcs_address))
    while not any(node["NodeID"] == node_id for node in state.node_table()) and time.monotonic() < until:
        time.sleep(PAUSE_S)
    state.disconnect()
    return before(gcs_address, node_id)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray's handler of SIGTERM would leave Python at once, in the middle of the start; a run has one of its own (stopping.py)."""
    before = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = before


@contextlib.contextmanager
def _with_a_token() -> Iterator[None]:
    """While Ray's processes start, their environment has a new token, unless the user's environment names one."""
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        yield
        return
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    forget_token()
    try:
        yield
    finally:
        del os.environ["RAY_AUTH_TOKEN"]


def forget_token() -> None:
    """Makes Ray look for a token again: it keeps the first one that a process used, also after another Ray was started or joined."""
    AuthenticationTokenLoader.instance().reset_cache()
