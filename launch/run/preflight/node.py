"""Checks of one node: whether the processes that are placed there could start. Runs on the driver, or on each node of a cluster.

Each check is a function of a NodePlan that yields its messages: key, value, what is wrong, remedy. The first ones need neither torch
nor a model. This module imports no torch and no ray.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from corewarding.actors.engines import ENGINES, EngineKind, missing_package
from corewarding.actors.settings import EngineSettings
from corewarding.actors.shared_memory import shortage
from corewarding.dataflow import plugins
from corewarding.dataflow.ids import Source
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.plan.memory import ELEMENT
from corewarding.launch.run.preflight.interpreter import InterpreterError, ask
from corewarding.launch.run.preflight.memory import memory_here, too_large
from corewarding.launch.run.preflight.needs import Kind, process_environment, weight_backend
from corewarding.weights.model_files import ModelFilesError, StoredModel, fingerprint

SERVER_S = 5.0
_ACTOR_NEEDS = ("ray", "torch", "transformers", "numpy", "msgpack", "pydantic")
"""Packages that a rollout actor in another interpreter imports besides its engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """The part of a run that one node holds."""

    config: TrainConfig
    processes: Mapping[Kind, int]  # number of processes on this node
    model: StoredModel | None = None  # as the driver sees it; None: not read yet

    def engines(self) -> Iterator[tuple[str, EngineSettings, EngineKind]]:
        """The engine sections that have actors here, by key, with the row of their kind."""
        sources: tuple[Source, ...] = ("policy", "teacher")
        seen: list[EngineSettings] = []
        for source in sources:
            settings = self.config.engine_of(source)
            if self.processes.get(source) and settings not in seen:
                seen.append(settings)
                yield "engine" if settings == self.config.engine else "teacher_engine", settings, ENGINES[settings.kind]


def early_problems(plan: NodePlan) -> list[str]:
    """The messages of the checks that take no time."""
    plugins.load_listed()  # on another node nothing else has loaded them
    return [message for check in EARLY_CHECKS for message in check(plan)]


def late_problems(plan: NodePlan) -> list[str]:
    """The messages of the checks that load torch or read the model's size."""
    return [message for check in LATE_CHECKS for message in check(plan)]


def node_problems(plan: NodePlan) -> list[str]:
    """The messages of all checks."""
    return [*early_problems(plan), *late_problems(plan)]


def _model_folder(plan: NodePlan) -> Iterator[str]:
    folder = Path(plan.config.model_folder)
    if folder.is_absolute() and not folder.is_dir():
        yield f"model.path {folder}: there is no such folder; every node needs it at this place"


def _same_model(plan: NodePlan) -> Iterator[str]:
    """Whether this node's folder holds the model that the driver has checked: the ranks load parts of one model."""
    folder = Path(plan.config.model_folder)
    if plan.model is None or not folder.is_dir():
        return
    try:
        here = fingerprint(folder)
    except ModelFilesError as error:
        yield str(error)
        return
    if here != plan.model.fingerprint:
        yield (
            f"model.path {folder} holds another model here than where the run was started ({here}, there {plan.model.fingerprint}): "
            "all ranks and engines must load the same one; copy the folder to every node, or share it"
        )


def _memory(plan: NodePlan) -> Iterator[str]:
    if plan.model is not None:
        yield from too_large(plan.config, plan.model, plan.processes, memory_here())


def _cores(plan: NodePlan) -> Iterator[str]:
    usable = os.sched_getaffinity(0)
    pinned = [("learner.cores", plan.config.learner.cores)] if plan.processes.get("learner") else []
    pinned += [(f"{name}.cores", settings.cores) for name, settings, _ in plan.engines()]
    for key, cores in pinned:
        if absent := sorted(set(cores or ()) - usable):
            yield f"{key} names {absent}, and the cores are {_ranges(sorted(usable))}; choose among them, or leave the key out"


def _peft(plan: NodePlan) -> Iterator[str]:
    lora = plan.config.learner.lora
    if lora.is_on and plan.processes.get("learner") and find_spec("peft") is None:
        yield (
            f"learner.lora.rank {lora.rank} needs the package peft, which {sys.executable} lacks; `pip install 'corewarding[lora]'`, "
            "or set learner.lora.rank null to train all weights"
        )


def _engine_python(plan: NodePlan) -> Iterator[str]:
    """The interpreter of each engine and what is installed in it."""
    for name, its, kind in plan.engines():
        if kind.package is None:
            continue
        if its.python is None or kind.python_of is None:
            if reason := missing_package(kind, its):
                yield reason
        elif not (kind.takes_url and its.url is not None):
            yield from _interpreter(name, its, kind, wants_gpu=plan.config.rollout.gpus_per_actor > 0)


def _interpreter(name: str, its: EngineSettings, kind: EngineKind, *, wants_gpu: bool) -> Iterator[str]:
    package, python = str(kind.package), str(its.python)
    remedy = f"set {name}.python to one that has {package}: {kind.remedy}"
    is_actor = kind.python_of == "actor"
    environment = process_environment(1)["env_vars"] if is_actor else {"PYTHONPATH": ""}
    try:
        found = ask(python, [package, *(_ACTOR_NEEDS if is_actor else ())], environment)
    except InterpreterError as error:
        yield f"{name}.python {python} {error}; {remedy}"
        return
    if package not in found.has:
        yield f"{name}.kind {its.kind}: {python} has no {package}; {remedy}"
        return
    if is_actor:
        if absent := [needed for needed in _ACTOR_NEEDS if needed not in found.has]:
            yield f"{name}.python {python} has no {', '.join(absent)}: the rollout actor runs in it; pip install corewarding there"
        elif found.ray != version("ray") or found.version.split(".")[:2] != list(map(str, sys.version_info[:2])):
            yield (
                f"{name}.python {python} has Python {found.version} and Ray {found.ray}, the run {sys.version.split()[0]} and "
                f"{version('ray')}: Ray needs the same in all processes; install them there"
            )
    if wants_gpu and found.cuda is None:
        yield f"rollout.gpus_per_actor: the torch of {name}.python {python} is built without CUDA; install its CUDA build there"


def _gpus(plan: NodePlan) -> Iterator[str]:
    """Whether this Python's torch can use the GPUs that processes here reserve."""
    learner, rollout = plan.config.learner, plan.config.rollout
    wants = []
    if plan.processes.get("learner") and learner.device == "cuda":
        wants.append("learner.device cuda")
    elif plan.processes.get("learner") and learner.device == "auto" and learner.gpus_per_rank > 0:
        wants.append(f"learner.gpus_per_rank {learner.gpus_per_rank:g}")
    own = [its for _, its, kind in plan.engines() if kind.python_of is None or its.python is None]
    if rollout.gpus_per_actor > 0 and own:
        wants.append(f"rollout.gpus_per_actor {rollout.gpus_per_actor:g}")
    if not wants:
        return
    import torch  # seconds

    keys, torch_version = " and ".join(wants), torch.__version__
    if torch.version.cuda is None:
        yield f"{keys}: torch {torch_version} is built without CUDA; install its CUDA build, or take GPUs out of the configuration"
    elif not torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        yield f"{keys}: torch {torch_version} sees no GPU (CUDA_VISIBLE_DEVICES: {visible}); see nvidia-smi and `corewarding doctor`"
    elif (
        "nccl" in (plan.config.publish.backend, weight_backend(plan.config))
        and not torch.distributed.is_nccl_available()
    ):
        yield f"publish.backend nccl: torch {torch_version} is built without NCCL; set publish.backend gloo"


def _servers(plan: NodePlan) -> Iterator[str]:
    """Whether an engine's server answers and accepts the key. Any answer counts: a paused server does not call itself healthy."""
    for name, its, kind in plan.engines():
        if its.url is None or not kind.takes_url:
            continue
        headers = {"Authorization": f"Bearer {its.api_key}"} if its.api_key else {}
        request = urllib.request.Request(its.url.rstrip("/") + "/health", headers=headers)
        try:
            urllib.request.urlopen(request, timeout=SERVER_S).close()
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                yield f"{name}.url {its.url} refuses {name}.api_key ({error.code}); set the key that the server was started with"
        except OSError as error:
            reason = getattr(error, "reason", error)
            yield f"{name}.url {its.url}: no server answers there ({reason}); start it, or set the address of one that runs"


def _shared_memory(plan: NodePlan) -> Iterator[str]:
    sources: tuple[Source, ...] = ("policy", "teacher")
    staging = [source for source in sources if stages(plan.config.engine_of(source))]
    num = sum(plan.processes.get(source, 0) for source in staging)
    if num and plan.model is not None:
        size = int(plan.model.num_parameters * ELEMENT[plan.config.engine.dtype])
        if reason := shortage(size, engines=num):
            yield reason


def stages(settings: EngineSettings) -> bool:
    """Whether an engine with these settings stages weights in shared memory."""
    return ENGINES[settings.kind].python_of == "actor" and settings.tensor_parallel > 1


def _ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] as `0-2, 5`."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


NodeCheck = Callable[[NodePlan], Iterator[str]]
EARLY_CHECKS: tuple[NodeCheck, ...] = (_cores, _peft, _engine_python, _servers)
LATE_CHECKS: tuple[NodeCheck, ...] = (_model_folder, _same_model, _gpus, _memory, _shared_memory)
