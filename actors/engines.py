"""The table of engine kinds: the capabilities and needs of each. The rest of the project reads a row and never tests the name.

An engine is one folder in actors/ and one row here; a plug-in registers a row of its own.
This module imports no engine and no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from corewarding.actors.engine import EngineContext, EngineSettingsError, RolloutEngine
from corewarding.actors.settings import EngineSettings
from corewarding.dataflow.process import settle
from corewarding.dataflow.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKind:
    """One row. The defaults describe an engine that samples from a model and has no special features."""

    make: str | Callable[[EngineContext], RolloutEngine]
    """Builds the engine: a callable, or `module:name` of one, imported when an engine of this kind is built."""
    package: str | None = None
    """The Python package that the engine needs; None: it needs no package."""
    remedy: str = "install its package"
    """How a user gets the package, for messages."""
    tested: tuple[str, ...] = ()
    """Versions of the package that pass the conformance suite."""
    python_of: Literal["actor", "server"] | None = None
    """What `engine.python` runs: the whole rollout actor, or a server that the engine starts; None: the key is not used."""
    has_model_logprobs: bool = True
    """Its logprobs are a model's, so they can be compared with the learner's."""
    seeded: bool = True
    """The same task gives the same tokens again."""
    deterministic: bool = False
    """Supports `engine.deterministic`."""
    own_stream: bool = False
    """Can draw without a seed for each completion (`engine.request_seeds: false`)."""
    tensor_parallel: bool = False
    """Supports `engine.tensor_parallel` above 1."""
    takes_arguments: bool = False
    """Passes `engine.arguments` on to its package."""
    takes_url: bool = False
    """Can use a running server at `engine.url`."""
    takes_memory_fraction: bool = False
    """Reserves `engine.memory_fraction` of a GPU when it starts."""
    needs_script: bool = False
    """Replays `engine.script`."""
    refuse_model: str | None = None
    """`module:name` of a function of (transformers' configuration, folder=) that raises EngineSettingsError for a model that the
    engine cannot serve; None: only the engine itself knows. Called before anything is started."""

    def check_model(self, config: Any, *, folder: str) -> None:
        """EngineSettingsError if this kind cannot serve the model."""
        if self.refuse_model is not None:
            module, _, name = self.refuse_model.partition(":")
            getattr(importlib.import_module(module), name)(config, folder=folder)


_KINDS = {
    "embedded": EngineKind(
        make="corewarding.actors.embedded.engine:EmbeddedEngine",
        deterministic=True,
        refuse_model="corewarding.actors.embedded.served:refuse_model",
    ),
    "vllm": EngineKind(
        make="corewarding.actors.vllm.engine:VllmEngine",
        package="vllm",
        remedy="make engines makes .venv-vllm/bin/python, which engine.python then names; or pip install 'corewarding[vllm]'",
        tested=("0.32.0",),
        python_of="actor",
        own_stream=True,
        tensor_parallel=True,
        takes_arguments=True,
        takes_memory_fraction=True,
    ),
    "sglang": EngineKind(
        make="corewarding.actors.sglang.engine:SglangEngine",
        package="sglang",
        remedy="make engines makes .venv-sglang/bin/python, which engine.python then names; or pip install 'corewarding[sglang]'",
        tested=("0.5.23",),
        python_of="server",
        seeded=False,  # only in its deterministic mode, which has no CPU kernels
        own_stream=True,
        tensor_parallel=True,
        takes_arguments=True,
        takes_url=True,
        takes_memory_fraction=True,
    ),
    "scripted": EngineKind(
        make="corewarding.actors.scripted.engine:ScriptedEngine", has_model_logprobs=False, needs_script=True
    ),
}

ENGINES: Registry[EngineKind] = Registry("engine kind")
for _name, _kind in _KINDS.items():
    ENGINES.register(_name, _kind)


def engine_kind(
    name: str, **row: Any
) -> Callable[[Callable[[EngineContext], RolloutEngine]], Callable[[EngineContext], RolloutEngine]]:
    """Registers the decorated class or function, which builds an engine from an EngineContext, as `engine.kind: name`. For plug-ins.

    row: further fields of EngineKind. What is decorated comes back unchanged.
    """

    def register(make: Callable[[EngineContext], RolloutEngine]) -> Callable[[EngineContext], RolloutEngine]:
        ENGINES.register(name, EngineKind(make=make, **row), depth=2)
        return make

    return register


def kinds_with(capability: str) -> str:
    """The names of the kinds whose row has `capability`, for messages: "vllm or sglang"."""
    return " or ".join(name for name, kind in ENGINES.items() if getattr(kind, capability))


def make_engine(context: EngineContext) -> RolloutEngine:
    """The engine of `context.settings.kind`, ready to sample.

    UserError if there is no such kind, its package is not installed, or it refuses the model or a setting. EngineError if it
    does not start.
    """
    settings = context.settings
    kind = ENGINES[settings.kind]
    if reason := missing_package(kind, settings):
        raise EngineSettingsError(reason)
    if settings.deterministic and not kind.deterministic:
        raise EngineSettingsError(
            f"engine.deterministic needs engine.kind {kinds_with('deterministic')}, got {settings.kind}"
        )
    if kind.needs_script and settings.script is None:
        raise EngineSettingsError(
            f"engine.kind {settings.kind} needs engine.script, a JSONL file of recorded completions"
        )
    make = kind.make
    if isinstance(make, str):
        module, _, name = make.partition(":")
        make = getattr(importlib.import_module(module), name)
    engine: RolloutEngine = make(context)
    settle()
    return engine


def missing_package(kind: EngineKind, settings: EngineSettings) -> str | None:
    """Why an engine of this kind cannot be built in this Python, with the remedy; None if it can."""
    if kind.package is None or importlib.util.find_spec(kind.package) is not None:
        return None
    if kind.python_of == "server" and (settings.python is not None or settings.url is not None):
        return None
    return f"engine.kind {settings.kind}: {sys.executable} has no {kind.package}; set engine.python to one that has it: {kind.remedy}"
