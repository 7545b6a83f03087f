"""Engines by kind. Each is imported when it is asked for, so that one's dependencies are no concern of another's."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable

import torch

from corewarding.actors.engine import EngineError, RolloutEngine
from corewarding.actors.settings import EngineSettings, InflightMode


def _embedded() -> Callable[..., RolloutEngine]:
    from corewarding.actors.embedded.engine import EmbeddedEngine

    return EmbeddedEngine


def _scripted() -> Callable[..., RolloutEngine]:
    from corewarding.actors.scripted.engine import ScriptedEngine

    return ScriptedEngine


def _vllm() -> Callable[..., RolloutEngine]:
    from corewarding.actors.vllm.engine import VllmEngine

    return VllmEngine


def _sglang() -> Callable[..., RolloutEngine]:
    from corewarding.actors.sglang.engine import SglangEngine

    return SglangEngine


INSTALLED_APART = ("vllm", "sglang")
ENGINES: dict[str, Callable[[], Callable[..., RolloutEngine]]] = {
    "embedded": _embedded,
    "vllm": _vllm,
    "sglang": _sglang,
    "scripted": _scripted,
}


def make_engine(
    settings: EngineSettings,
    *,
    model_path: str,
    max_model_len: int,
    device: torch.device,
    eos_token_ids: tuple[int, ...],
    incarnation: int = 0,
    initial_updates: int = 0,
    inflight: InflightMode = "recompute",
) -> RolloutEngine:
    """The engine that `settings.kind` names, with `model_path`'s weights stamped (incarnation, initial_updates).

    EngineError where it is not installed or does not start.
    """
    elsewhere = settings.kind == "sglang" and (settings.python is not None or settings.url is not None)
    if settings.kind in INSTALLED_APART and not elsewhere and importlib.util.find_spec(settings.kind) is None:
        raise EngineError(
            f"engine.kind {settings.kind}: {sys.executable} has no {settings.kind}; set engine.python to one that has "
            f"(make engines makes .venv-{settings.kind}/bin/python), or pip install corewarding[{settings.kind}]"
        )
    return ENGINES[settings.kind]()(
        model_path,
        settings=settings,
        max_model_len=max_model_len,
        device=device,
        eos_token_ids=eos_token_ids,
        incarnation=incarnation,
        initial_updates=initial_updates,
        inflight=inflight,
    )
