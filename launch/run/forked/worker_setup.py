"""What Ray's node starts for each process of a run: gives it its environment and becomes its program. Ray's own file for this imports
all of Ray before it does so, which costs more than everything else in the start of a fork. Run as a file, with the standard library
alone.

For what a run does not use (other languages, entry points of containers) this becomes Ray's own file.
"""

import argparse
import json
import os
import re
import runpy
import shlex
import sys

RAYS_OWN = "setup_worker.py"
"""Beside the program that it starts."""


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--serialized-runtime-env-context", default="{}")
    parser.add_argument("--language", default="PYTHON")
    known, words = parser.parse_known_args()
    context = json.loads(known.serialized_runtime_env_context or "{}")
    if known.language != "PYTHON" or context.get("override_worker_entrypoint") or "DYLD_LIBRARY_PATH" in os.environ:
        program = next(word for word in words if word.endswith(".py"))
        runpy.run_path(os.path.join(os.path.dirname(program), RAYS_OWN), run_name="__main__")
        return
    for name, value in (context.get("env_vars") or {}).items():
        os.environ[name] = re.sub(r"\$\{[A-Z0-9_]+\}", "", os.path.expandvars(value))
    python = context.get("py_executable") or sys.executable  # one or several words, for a shell
    command = [*(context.get("command_prefix") or []), "exec", python, *map(shlex.quote, words)]
    os.execvp("bash", ["bash", "-c", " ".join(command)])


if __name__ == "__main__":
    main()
