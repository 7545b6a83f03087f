"""Asks another Python interpreter what it has, without importing any of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from corewarding.dataflow.errors import UserError

TIMEOUT_S = 20.0
_CODE = """
import importlib.util, json, os, sys
def found(name):
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
def version(name):
    try:
        from importlib.metadata import version
        return version(name)
    except Exception:
        return None
cuda, torch = {}, found("torch")
if torch is not None and torch.origin:
    try:
        with open(os.path.join(os.path.dirname(torch.origin), "version.py")) as file:
            exec(file.read(), cuda)
    except OSError:
        pass
has = [name for name in sys.argv[1:] if found(name) is not None]
print(json.dumps({"version": "%d.%d.%d" % sys.version_info[:3], "has": has, "ray": version("ray"), "cuda": cuda.get("cuda")}))
"""


class InterpreterError(UserError):
    """A program that was named as a Python interpreter is none, or cannot be started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """What a Python interpreter has."""

    version: str
    has: frozenset[str]  # of the packages that were asked
    ray: str | None
    cuda: str | None  # version that its torch is built for; None: built without CUDA, or no torch


def ask(python: str, packages: Iterable[str], environment: Mapping[str, str]) -> Interpreter:
    """Runs `python` with the variables of `environment` added. InterpreterError says why it gives no answer."""
    command = [str(Path(python).expanduser().absolute()), "-c", _CODE, *packages]
    env = os.environ | dict(environment)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=env, check=False)
    except subprocess.TimeoutExpired:
        raise InterpreterError(f"gives no answer within {TIMEOUT_S:g} s") from None
    except OSError as error:
        raise InterpreterError(f"cannot be started: {error.strerror}") from error
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        return Interpreter(
            version=answer["version"], has=frozenset(answer["has"]), ray=answer["ray"], cuda=answer["cuda"]
        )
    except (ValueError, IndexError, KeyError, TypeError) as error:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["nothing"]
        raise InterpreterError(
            f"is no working Python interpreter: exit code {done.returncode}, it says {said[0]!r}"
        ) from error
