"""Prints the completion of commands, flags and their values, for bash or zsh.

The script holds all names, so that completing a word starts no Python. Names that plug-ins add are not in it.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro
from pydantic import BaseModel

from corewarding.launch.commands.doctor import DoctorArguments
from corewarding.launch.commands.evaluate import CompareArguments, EvalArguments, RegradeArguments
from corewarding.launch.commands.export import ExportArguments
from corewarding.launch.commands.init import InitArguments
from corewarding.launch.commands.planning.plan import PlanArguments
from corewarding.launch.commands.questions.data import InspectArguments
from corewarding.launch.commands.questions.rephrase import RephraseArguments
from corewarding.launch.commands.recipes import RecipesArguments
from corewarding.launch.commands.resume import ResumeArguments
from corewarding.launch.commands.runs.compare import CompareRunsArguments
from corewarding.launch.commands.runs.journal import JournalArguments
from corewarding.launch.commands.runs.listing import RunsArguments
from corewarding.launch.commands.runs.replay import ReplayArguments
from corewarding.launch.commands.runs.samples import SamplesArguments
from corewarding.launch.commands.runs.trace import TraceArguments
from corewarding.launch.commands.runs.view import ViewArguments
from corewarding.launch.commands.submit import SubmitArguments
from corewarding.launch.commands.sweep import SweepArguments
from corewarding.launch.commands.train import TrainArguments
from corewarding.launch.config.arguments import read_arguments
from corewarding.launch.config.checks import NAMES
from corewarding.launch.config.recipes import recipes


@dataclass(frozen=True)
class CompletionArguments:
    """Prints the completion of commands, flags and their values for a shell.

    bash: add this line to ~/.bashrc: eval "$(corewarding completion bash)"
    zsh: add this line to ~/.zshrc, after compinit: eval "$(corewarding completion zsh)"
    """

    shell: Annotated[tyro.conf.Positional[Literal["bash", "zsh"]], tyro.conf.arg(metavar="{bash,zsh}")]
    """The shell."""


ARGUMENTS: dict[str, tuple[type, ...]] = {
    "train": (TrainArguments,),
    "resume": (ResumeArguments,),
    "submit": (SubmitArguments,),
    "sweep": (SweepArguments,),
    "plan": (PlanArguments,),
    "eval": (EvalArguments, RegradeArguments, CompareArguments),
    "export": (ExportArguments,),
    "runs": (RunsArguments,),
    "compare": (CompareRunsArguments,),
    "trace": (TraceArguments,),
    "view": (ViewArguments,),
    "samples": (SamplesArguments,),
    "journal": (JournalArguments,),
    "replay": (ReplayArguments,),
    "data": (InspectArguments,),
    "rephrase": (RephraseArguments,),
    "recipes": (RecipesArguments,),
    "init": (InitArguments,),
    "doctor": (DoctorArguments,),
    "completion": (CompletionArguments,),
}
"""What each command takes."""
_MODES = {"eval": ("--regrade", "--compare")}
"""Flags that choose among the several arguments of a command."""
_FIRST_WORDS = {"data": ("inspect",), "completion": ("bash", "zsh")}


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag, and the values that it takes if they are fixed."""

    name: str
    values: tuple[str, ...] = ()


def run(words: list[str]) -> int:
    shell = read_arguments(CompletionArguments, words, prog="corewarding completion").shell
    print(script(shell), end="")
    return 0


def script(shell: Literal["bash", "zsh"]) -> str:
    """The completion script of that shell."""
    flags = {command: [flag for kind in kinds for flag in flags_of(kind)] for command, kinds in ARGUMENTS.items()}
    named = {command: [*_MODES.get(command, ()), *(flag.name for flag in its)] for command, its in flags.items()}
    values = {(c, flag.name): flag.values for c, its in flags.items() for flag in its if flag.values}
    first = (
        _FIRST_WORDS
        | dict.fromkeys(("train", "submit", "sweep", "plan"), tuple(recipes()))
        | {"recipes": tuple(recipes())}
    )
    choices = [
        "  case $command in",
        *(f"    {command}) flags='{' '.join(['--help', *dict.fromkeys(its)])}' ;;" for command, its in named.items()),
        "  esac",
        '  case "$command ${previous//_/-}" in',
        *(f"    '{command} {name}') values='{' '.join(its)}' ;;" for (command, name), its in values.items()),
        "  esac",
        '  [ "$position" -eq 2 ] && case $command in',
        *(f"    {command}) first='{' '.join(its)}' ;;" for command, its in first.items()),
        "  esac",
    ]
    return {"bash": _BASH, "zsh": _ZSH}[shell] % {"commands": " ".join(ARGUMENTS), "choices": "\n".join(choices)}


def flags_of(kind: type, prefix: str = "--") -> Iterator[Flag]:
    """The flags of a dataclass or settings class, those of its sections included. Positional arguments are none."""
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if name.startswith(("model_", "_")) or typing.get_origin(hint) is typing.ClassVar:
            continue
        marks = repr(getattr(hint, "__metadata__", ""))
        inner = typing.get_args(hint)[0] if marks != "''" else hint
        flag = prefix + name.replace("_", "-")
        if "Positional" in marks:
            continue
        if isinstance(inner, type) and (issubclass(inner, BaseModel) or dataclasses.is_dataclass(inner)):
            yield from flags_of(inner, "--" if name == "settings" else f"{flag}.")
            continue
        yield Flag("--from" if kind is InitArguments and name == "source" else flag, _values(flag, inner))
        if inner is bool and "FlagCreatePairsOff" not in marks:
            yield Flag(f"{prefix}no-{name.replace('_', '-')}")


def _values(flag: str, hint: Any) -> tuple[str, ...]:
    key = flag.removeprefix("--").replace("-", "_")
    if key in NAMES:
        return tuple(NAMES[key])
    if typing.get_origin(hint) is Literal:
        return tuple(map(str, typing.get_args(hint)))
    return tuple(value for inner in _alternatives(hint) for value in _values(flag, inner))


def _alternatives(hint: Any) -> Sequence[Any]:
    return typing.get_args(hint) if typing.get_origin(hint) is not dict else ()


_BASH = """\
# Completion of corewarding for bash: eval "$(corewarding completion bash)"
_corewarding() {
  local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}
  local position=$COMP_CWORD flags='' values='' first=''
  COMPREPLY=()
  if [ "$position" -eq 1 ]; then
    COMPREPLY=($(compgen -W '%(commands)s --help --version' -- "$word"))
    return
  fi
%(choices)s
  if [ -n "$values" ]; then
    COMPREPLY=($(compgen -W "$values" -- "$word"))
  elif [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
  else
    COMPREPLY=($(compgen -W "$first" -- "$word"))
    local IFS=$'\n'  # file names may have spaces
    COMPREPLY+=($(compgen -f -- "$word"))
  fi
}
complete -o filenames -F _corewarding corewarding
"""

_ZSH = """\
#compdef corewarding
# Completion of corewarding for zsh: eval "$(corewarding completion zsh)"
_corewarding() {
  local word=${words[CURRENT]} previous=${words[CURRENT-1]} command=${words[2]}
  local position=$((CURRENT - 1)) flags='' values='' first=''
  if [ "$position" -eq 1 ]; then
    compadd -- %(commands)s --help --version
    return
  fi
%(choices)s
  if [ -n "$values" ]; then
    compadd -- ${=values}
  elif [[ $word == -* ]]; then
    compadd -- ${=flags}
  else
    [ -n "$first" ] && compadd -- ${=first}
    _files
  fi
}
compdef _corewarding corewarding
"""
