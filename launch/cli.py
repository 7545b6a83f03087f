"""The `corewarding` command: finds a command's file in launch/commands/ and runs it.

Each file has a docstring, whose first line stands in `corewarding --help`, and `run(words) -> exit code`. The help is read without
importing the files, so that it comes at once.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import os
import sys
from pathlib import Path

import corewarding
from corewarding.dataflow.errors import RunError, SignalStop, UserError
from corewarding.dataflow.process import collect_rarely
from corewarding.launch.report.plain import say

COMMANDS = {
    "train": "train",
    "resume": "resume",
    "submit": "submit",
    "sweep": "sweep",
    "plan": "planning.plan",
    "eval": "evaluate",
    "export": "export",
    "runs": "runs.listing",
    "compare": "runs.compare",
    "trace": "runs.trace",
    "view": "runs.view",
    "samples": "runs.samples",
    "journal": "runs.journal",
    "replay": "runs.replay",
    "data": "questions.data",
    "rephrase": "questions.rephrase",
    "recipes": "recipes",
    "init": "init",
    "doctor": "doctor",
    "completion": "completion",
}
"""Command to the name of its file below launch/commands/."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command. Exit code: 0 success, 2 a mistake in the input, 1 a run that failed; each error is one message."""
    words = sys.argv[1:] if arguments is None else arguments
    if arguments is None:  # a process of its own
        collect_rarely()
    if not words or words[0] in ("-h", "--help"):
        print(help_text())
        return 0
    if words[0] == "--version":
        print(f"corewarding {corewarding.__version__}")
        return 0
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        say(f"corewarding: unknown command {words[0]!r}; {hint}", error=True)
        return 2
    command = importlib.import_module(f"corewarding.launch.commands.{COMMANDS[words[0]]}")
    try:
        return int(command.run(words[1:]))
    except UserError as error:
        say(f"corewarding: {error}", error=True)
        return 2
    except RunError as error:
        say(f"corewarding: {error}", error=True)
        return 1
    except SignalStop as error:
        say(f"corewarding: {error}", error=True)
        return error.exit_code
    except BrokenPipeError:  # `corewarding ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("corewarding: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if error.filename is None:  # nothing that a user could look at
            raise
        say(f"corewarding: {error.filename}: {error.strerror}", error=True)
        return 2


def help_text() -> str:
    """One line per command: the first line of its file's docstring."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary(file)}" for name, file in COMMANDS.items()]
    return "\n".join(
        [
            "corewarding: label-free reinforcement learning of reasoning models",
            "",
            *lines,
            "",
            "`corewarding COMMAND --help` lists the arguments. Start with `corewarding train cpu`; `corewarding recipes` lists more.",
        ]
    )


def summary(file: str) -> str:
    """First line of the docstring of a file below launch/commands/."""
    source = (Path(__file__).with_name("commands") / file.replace(".", "/")).with_suffix(".py")
    return (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").split("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
