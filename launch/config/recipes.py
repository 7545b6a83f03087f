"""Finds recipes and composes them: a recipe is a YAML file that may build on others.

`base: [models/qwen3_8b, data/math]` takes over the keys of those files; the file's own keys override them. Two bases may not set the
same key, unless the file sets it itself. `A+B` as CONFIG composes from left to right: the keys of B override those of A.
Invariant: every key of a composition knows the file that set it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from corewarding.dataflow import plugins
from corewarding.dataflow.errors import UserError
from corewarding.launch.config.paths import RECIPE_PARTS, RECIPES
from corewarding.launch.config.tree import TrainConfig

Key = tuple[str, ...]  # (section, key), or (key,) at the top level


class ConfigError(UserError):
    """A key, a value or a combination that cannot be run."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and the file that set it."""

    value: Any
    file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """A configuration as its files give it, not yet checked."""

    name: str  # as the user wrote it
    files: tuple[Path, ...]  # all that were read, the named ones last
    settings: Mapping[Key, Setting]

    @property
    def folder(self) -> Path:
        """The folder of the named file, where its plug-ins are looked for first."""
        return self.files[-1].parent

    def content(self) -> dict[str, Any]:
        """The keys as one nested mapping."""
        content: dict[str, Any] = {}
        for key, setting in self.settings.items():
            inside = content.setdefault(key[0], {}) if len(key) == 2 else content
            inside[key[-1]] = setting.value
        return content

    def description(self) -> str:
        """`co_rewarding_i = training/paper + models/qwen3_8b + ...`; the name alone for a single file."""
        bases = [short_name(file) for file in self.files if short_name(file) != self.name]
        return self.name + (f" = {' + '.join(bases)}" if len(self.files) > 1 else "")


def recipes() -> dict[str, str]:
    """Shipped recipes by name, each with the first comment line of its file."""
    return {name: _title(file) for name, file in _recipe_files().items()}


def parts() -> dict[str, str]:
    """Shipped parts of recipes by name (`data/math`), each with the first comment line of its file."""
    return {name: _title(file) for name, file in _part_files().items()}


def find_config(name: str | Path) -> Path:
    """The file that a name means: a path if it has a suffix or a path separator, else a shipped recipe.

    ConfigError if there is no such file or recipe.
    """
    path, known = Path(name), _recipe_files()
    if path.suffix or os.sep in str(name):
        if not path.is_file():
            raise ConfigError(f"{name}: there is no such configuration file")
        return path
    if str(name) not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"there is no recipe {str(name)!r}; {hint}The recipes are {', '.join(known)}; a file needs its suffix, {name}.yaml"
        )
    return known[str(name)]


def compose(name: str | Path) -> Composition:
    """The configuration that CONFIG names: a file, a recipe, or several of them and of parts, joined by `+`.

    ConfigError names a file that cannot be read, a circle of bases, and a key that two bases set.
    """
    words = [str(name)] if Path(name).is_file() else str(name).split("+")
    if words == [str(name)] and str(name) in _part_files() and not Path(name).is_file():
        raise ConfigError(f"{name} is a part of recipes, not a recipe; add it to one: co_rewarding_ii+{name}")
    files: dict[Path, None] = {}
    settings: dict[Key, Setting] = {}
    for word in words:
        part = _part_files().get(word)
        settings |= _resolve(find_config(word) if part is None or Path(word).is_file() else part, (), files)
    shipped = len(words) > 1 or list(files)[-1] in _recipe_files().values()
    if shipped and ("run", "name") not in settings:
        run_name = "-".join(Path(word).stem for word in words).replace("_", "-")
        settings["run", "name"] = Setting(run_name, list(files)[-1])
    return Composition(name=str(name), files=tuple(files), settings=settings)


def render(composition: Composition) -> str:
    """The composition as one YAML file without bases. A comment names the file of each key that comes from a base."""
    named = composition.files[-1]
    lines = [f"# {_title(named)}", f"# {composition.description()}"]
    section = None
    for key, setting in composition.settings.items():
        if len(key) == 2 and key[0] != section:
            lines.append(f"{key[0]}:")
        section = key[0] if len(key) == 2 else None
        value = yaml.safe_dump(setting.value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
        comment = "" if setting.file == named else f"  # {short_name(setting.file)}"
        lines.append(f"{'  ' * (len(key) - 1)}{key[-1]}: {value}{comment}")
    return "\n".join(lines) + "\n"


def short_name(file: Path) -> str:
    """The name under which a shipped file is known; any other file by its path."""
    if file.is_relative_to(RECIPE_PARTS):
        return file.relative_to(RECIPE_PARTS).with_suffix("").as_posix()
    return file.stem if file.is_relative_to(RECIPES) else str(file)


def _recipe_files() -> dict[str, Path]:
    files = sorted(RECIPES.rglob("*.yaml"), key=lambda file: (len(file.parts), file))
    return {file.stem: file for file in files if not file.is_relative_to(RECIPE_PARTS)}


def _part_files() -> dict[str, Path]:
    return {short_name(file): file for file in sorted(RECIPE_PARTS.rglob("*.yaml"))}


def _title(file: Path) -> str:
    with file.open(encoding="utf-8") as lines:
        return lines.readline().lstrip("# ").strip()


def _resolve(file: Path, chain: tuple[Path, ...], files: dict[Path, None]) -> dict[Key, Setting]:
    """The keys of a file and its bases. chain: the files that led here. files: collects every file that is read."""
    if file in chain:
        circle = " -> ".join(short_name(one) for one in (*chain[chain.index(file) :], file))
        raise ConfigError(f"{short_name(chain[0])}: base goes in a circle: {circle}; remove one of them")
    content = _read(file)
    bases = content.pop("base", None) or []
    if isinstance(bases, str):
        bases = [bases]
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{short_name(file)}: base must be a list of files, such as [models/qwen3_8b], got {bases!r}")
    own = _flatten(content, file)
    settings: dict[Key, Setting] = {}
    for base in bases:
        for key, setting in _resolve(_base_file(base, file), (*chain, file), files).items():
            before = settings.setdefault(key, setting)
            if before.file != setting.file and key not in own:
                raise ConfigError(
                    f"{short_name(file)}: two bases set {'.'.join(key)}: {short_name(before.file)} ({before.value!r}) and "
                    f"{short_name(setting.file)} ({setting.value!r}); set it in {short_name(file)}, or leave one of them out"
                )
    files.pop(file, None)
    files[file] = None
    ordered = dict(sorted((settings | own).items(), key=_order))
    return ordered


def _order(item: tuple[Key, Setting]) -> int:
    """Keys in the order of TrainConfig's sections; within a section they stay as they came."""
    known = list(TrainConfig.model_fields)
    section = item[0][0]
    return known.index(section) if section in known else len(known)


def _base_file(base: str, file: Path) -> Path:
    """The file that an entry of `base` means: a part or recipe by name, or a YAML file beside `file`."""
    known = _part_files() | _recipe_files()
    if base in known:
        return known[base]
    beside = file.parent / Path(base).expanduser()
    if beside.suffix in (".yaml", ".yml"):
        if beside.is_file():
            return beside.resolve()
        raise ConfigError(f"{short_name(file)}: base {base}: there is no such file (looked for {beside.absolute()})")
    near = difflib.get_close_matches(base, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_part_files())}, and the recipes"
    raise ConfigError(f"{short_name(file)}: base {base!r} does not exist; {hint} A file of your own ends in .yaml")


def _flatten(content: Mapping[str, Any], file: Path) -> dict[Key, Setting]:
    """The keys by (section, key). Plug-in files become absolute, because another file may take them over."""
    settings: dict[Key, Setting] = {}
    for key, value in content.items():
        field = TrainConfig.model_fields.get(str(key))
        kind = field.annotation if field else None
        if key == "teacher_engine" or (isinstance(kind, type) and issubclass(kind, BaseModel)):
            if not isinstance(value, dict):
                raise ConfigError(f"{short_name(file)}: {key}: must be keys with values, got {value!r}")
            settings |= {(str(key), str(inner)): Setting(one, file) for inner, one in value.items()}
        elif key == "plugins" and isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            found = plugins.resolve(value, folders=[file.parent, Path.cwd()])
            settings[(str(key),)] = Setting(list(found), file)
        else:
            settings[(str(key),)] = Setting(value, file)
    return settings


def _read(file: Path) -> dict[str, Any]:
    """The keys in one file. ConfigError if it cannot be read or is not a YAML mapping."""
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader) or {}
    except UnicodeDecodeError as error:
        raise ConfigError(f"{short_name(file)} is not UTF-8 text: {error}; save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{short_name(file)}: the file cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{short_name(file)} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{short_name(file)}: the top level must be keys, got a {type(content).__name__}")
    return content


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that occurs twice in one mapping; plain YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if key in first:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} occurs twice, in lines {first[key]} and {line}; remove one"
                )
            first[key] = line
        return super().construct_mapping(node, deep)
