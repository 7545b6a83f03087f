"""Plug-ins: the user's modules, imported in every process of a run before it looks up a name.

A plug-in registers reward rules, readers, metrics, engines and the like (dataflow/registry.py). The driver loads what `plugins:` in
the configuration lists; every other process finds the same list in an environment variable and loads it at its first lookup.
`corewarding submit` ships a copy of each file beside the package, and the copy is used wherever it exists.
Invariant: a plug-in is loaded at most once in a process, under one module name that is the same in all processes.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import json
import os
import sys
import threading
import traceback
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import ParamSpec, TypeVar

import corewarding
from corewarding.dataflow.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")

VARIABLE = "COREWARDING_PLUGINS"
"""Environment variable with the JSON list of plug-ins that a process of a run loads."""
SHIPPED = Path(corewarding.__file__).parents[1] / "corewarding_plugins"
"""Copies that came with a submitted job, named as `shipped_name` says."""

_lock = threading.RLock()
_modules: dict[str, ModuleType] = {}  # loaded plug-ins by their entry in the list
_read_environment = False


class PluginError(UserError):
    """A plug-in cannot be imported, or failed when it was called. The message names its file and line."""


def resolve(plugins: Iterable[str], *, folders: Sequence[Path]) -> tuple[str, ...]:
    """The list with absolute paths. A file, or a bare name with a file `<name>.py`, is looked for in `folders`; any other name is
    a module. PluginError where a named file does not exist.
    """
    return tuple(dict.fromkeys(_resolved(entry, folders) for entry in plugins))


def _resolved(entry: str, folders: Sequence[Path]) -> str:
    if not is_file(entry):
        found = [folder / f"{entry}.py" for folder in folders if (folder / f"{entry}.py").is_file()]
        return str(found[0].resolve()) if found else entry
    path = Path(entry).expanduser()
    found = [folder / path for folder in folders if (folder / path).is_file()]  # an absolute path stays itself
    if found:
        return str(found[0].resolve())
    if path.is_absolute() and (SHIPPED / shipped_name(str(path))).is_file():
        return str(path)
    places = ", ".join(dict.fromkeys(str((folder / path).absolute()) for folder in folders))
    raise PluginError(f"plugins: there is no file {entry} (looked for {places})")


def is_file(entry: str) -> bool:
    """Whether an entry of the list names a file; else it names a module."""
    return entry.endswith(".py") or os.sep in entry


def shipped_name(path: str) -> str:
    """File name of the copy of a plug-in file that a submitted job carries."""
    return f"{_module_name(path)}.py"


def load(plugins: Iterable[str]) -> None:
    """Imports plug-ins that are not loaded yet, in their order. PluginError names file and line of a mistake in one."""
    with _lock:
        for entry in plugins:
            if entry not in _modules:
                _load(entry)


def unload() -> None:
    """Forgets all plug-ins, so that they can be loaded again. What they registered stays."""
    with _lock:
        for module in _modules.values():
            sys.modules.pop(module.__name__, None)
        _modules.clear()


def load_listed() -> None:
    """Loads what this process's environment lists. Cheap after the first call."""
    global _read_environment
    if _read_environment:
        return
    with _lock:
        _read_environment = True  # first: a plug-in looks up names, too
        load(json.loads(os.environ.get(VARIABLE, "[]")))


def environment() -> dict[str, str]:
    """Environment variables with which another process loads what this one has loaded."""
    return {VARIABLE: json.dumps(list(_modules))} if _modules else {}


def is_loaded_from(module: str) -> bool:
    """Whether a module is a loaded plug-in or inside one; every process of a run then has it."""
    names = [loaded.__name__ for loaded in _modules.values()]
    return any(module == name or module.startswith(f"{name}.") for name in names)


def guarded(
    function: Callable[P, R], *, what: str, passes: tuple[type[UserError], ...] = (PluginError,)
) -> Callable[P, R]:
    """Wraps a plug-in's function so that its failures are PluginErrors that name its file and line.

    what: its role and name, for the message. passes: errors that are raised as they are.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except passes:
            raise
        except Exception as error:
            file = inspect.getfile(inspect.unwrap(function))
            raise PluginError(f"{what} failed: {_told(error, file)}") from error

    return call


def _load(entry: str) -> None:
    name = _module_name(entry) if is_file(entry) else entry
    file = entry
    try:
        if is_file(entry):
            shipped = SHIPPED / shipped_name(entry)
            file = str(shipped if shipped.is_file() else entry)
            _modules[entry] = _import_file(name, file)
        else:
            spec = importlib.util.find_spec(name)
            file = spec.origin if spec is not None and spec.origin is not None else entry
            _modules[entry] = importlib.import_module(name)
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(f"plug-in {entry} cannot be imported: {_told(error, file)}") from error


def _import_file(name: str, file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None, f"{file} ends in .py"
    assert spec.loader is not None, f"{file} ends in .py"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _module_name(path: str) -> str:
    """One name for a file in all processes; two files of one name in different folders stay apart."""
    return f"corewarding_plugin_{Path(path).stem}_{zlib.crc32(path.encode()):08x}"


def _told(error: Exception, file: str) -> str:
    """`FILE line N: Error: message`, the line being the last one of the plug-in's file on the way to the error."""
    told = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{error.filename} line {error.lineno}: {type(error).__name__}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{file} line {lines[-1]}: {told}" if lines else told
