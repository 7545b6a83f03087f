"""The arguments of a command, read by tyro into a dataclass whose fields say type, unit, default and bounds.

Any mistake is one message that names the flag, the value and what is right, as for a key of the configuration.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import tyro
from pydantic import TypeAdapter, ValidationError

from corewarding.actors.settings import EngineSettings
from corewarding.dataflow.errors import UserError
from corewarding.launch.config.checks import explain, section_of
from corewarding.launch.config.load import make_config

T = TypeVar("T")

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RULE = re.compile(r"[-─╭╮╰╯│ ]+")
_PLAIN = (
    (r"^Error parsing ([^:]+): ", r"\1: "),
    (r"no type matching (.*) could be instantiated from (.*?)\.?$", r"must be \1, got \2"),
    (r"invalid literal for int\(\) with base 10: ", "must be a whole number, got "),
    (r"could not convert string to float: ", "must be a number, got "),
    (r"^invalid choice (.*) for argument '(.*)'\. Expected one of \((.*?),?\)\.?$", r"\2 must be one of \3, got \1"),
    (r"^Missing value for argument '(.*)'\. Expected (\d+) values?\.?$", r"\1 needs \2 value(s) after it"),
    (r"^Unrecognized options: ", "unknown words: "),
    (r"^Missing from ([^:]+):; ", r"\1 needs "),
    (r"; ([^;]*) \(required\)", r" (\1)"),
)
"""tyro's words, and ours."""


class ArgumentError(UserError):
    """A word of the command line that the command cannot use."""


def read_arguments(
    kind: type[T], words: Sequence[str], *, prog: str, default: T | None = None, config: Sequence[Any] = ()
) -> T:
    """The arguments in `words`. Bounds are pydantic's, as in `Annotated[int, Field(ge=1)]`.

    ArgumentError for a mistake; SystemExit(0) after `--help`. default: values of what is not given.
    """
    refuse_repeated(words)
    arguments = _parse(kind, words, prog=prog, default=default, config=config)
    try:
        TypeAdapter(kind).validate_python({name: getattr(arguments, name) for name in _flags(kind)})
    except ValidationError as error:
        raise ArgumentError(_out_of_bounds(kind, error)) from None
    return arguments


def refuse_repeated(words: Sequence[str]) -> None:
    """ArgumentError for a flag that is given twice, because only the last would count."""
    seen: dict[str, str] = {}
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        if name in seen:
            which = "one of them" if word == seen[name] else f"{seen[name]!r} or {word!r}"
            raise ArgumentError(f"{name} is given twice, and only one can count: remove {which}")
        if len(name) > 2 and name.startswith("--"):
            seen[name] = word


@contextlib.contextmanager
def as_flags(flags: Mapping[str, str]) -> Iterator[None]:
    """Words the errors of shared code with this command's own flags: keys of the configuration are replaced by `flags`."""
    try:
        yield
    except UserError as error:
        message = str(error)
        for key, flag in flags.items():
            message = re.sub(rf"(?<![\w.-]){re.escape(key)}(?=$|[^\w-])", lambda _, flag=flag: flag, message)  # type: ignore[misc]
        if message == str(error):
            raise
        raise ArgumentError(message) from error


def checked_engine(settings: EngineSettings) -> EngineSettings:
    """The settings of a command's only engine. ConfigError if its kind does not exist or does not have what they ask for."""
    return make_config({"rule": "majority_vote", "engine": settings.model_dump()}, where="command line").engine


def _parse(kind: type[T], words: Sequence[str], *, prog: str, default: T | None, config: Sequence[Any]) -> T:
    told = io.StringIO()
    given: dict[str, Any] = {} if default is None else {"default": default}
    columns = os.environ.get("COLUMNS")
    helps = any(word in ("-h", "--help") for word in words)
    try:
        if not helps:
            os.environ["COLUMNS"] = "10000"  # tyro wraps its messages at the terminal's width
        with contextlib.redirect_stderr(told):
            parsed: T = tyro.cli(kind, args=list(words), prog=prog, config=tuple(config), **given)
            return parsed
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        invalid = _cause(stop)
        told_plainly = (
            _told(told.getvalue(), prog) if invalid is None else explain(invalid, inside=section_of(invalid.title))
        )
        raise ArgumentError(told_plainly) from None
    finally:
        os.environ.pop("COLUMNS", None)
        os.environ.update({} if columns is None else {"COLUMNS": columns})


def _cause(error: BaseException) -> ValidationError | None:
    """The pydantic error that caused `error`."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ValidationError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _told(box: str, prog: str) -> str:
    """tyro's message, a title and sections in a frame, as one sentence."""
    sections: list[list[str]] = [[]]
    for line in _COLOUR.sub("", box).splitlines()[1:]:
        if _RULE.fullmatch(line):
            sections.append([])
        elif line.strip(" │"):
            sections[-1].append(line.strip(" │"))
    first, *others = [section for section in sections if section]
    said = "; ".join(line for line in first if "<class 'NoneType'>" not in line)
    for wording, plain in _PLAIN:
        said = re.sub(wording, plain, said)
    said = re.sub(r"^(--\S+): must be", r"\1 must be", said)
    near = [
        line.split()[0] for section in others if section[0].startswith("Perhaps") for line in section if line[0] == "-"
    ]
    hint = f"; did you mean {' or '.join(near[:3])}?" if near else ""
    return f"{said}{hint}; see `{prog} --help`"


def _out_of_bounds(kind: type, error: ValidationError) -> str:
    found = error.errors(include_url=False)[0]
    name, *inside = map(str, found["loc"])
    flag = ".".join([_flags(kind).get(name, name), *inside])
    return f"{flag}: {found['msg'].removeprefix('Value error, ')}, got {found['input']!r}"


def _flags(kind: type) -> dict[str, str]:
    """Field to flag, or to the upper-case name of a positional argument."""
    return {
        field.name: field.name.upper() if "Positional" in str(field.type) else "--" + field.name.replace("_", "-")
        for field in dataclasses.fields(kind)
    }
