"""Our program sets up a process as Ray's own does, without importing Ray."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import ray_constants

from corewarding.launch.run.forked import worker_setup

RAYS = Path(ray.__file__).parent / "_private" / "workers" / ray_constants.SETUP_WORKER_FILENAME
OURS = Path(worker_setup.__file__)
SHOWS = """
import json, os, sys
flags = [sys.flags.no_site, sys.flags.no_user_site]
print(json.dumps({"words": sys.argv, "path": sys.path[0], "python": sys.executable, "flags": flags,
                  "environment": {key: value for key, value in os.environ.items() if not key.startswith("RAY") and key != "_"}}))
"""


def after(setup: Path, context: dict[str, Any], *words: str, folder: Path, python: tuple[str, ...] = ()) -> Any:
    program = folder / "default_worker.py"
    program.write_text(SHOWS)
    line = [sys.executable, *python, str(setup), "-s", str(program), *words, "--language=PYTHON"]
    line.append(f"--serialized-runtime-env-context={json.dumps(context)}")
    done = subprocess.run(line, capture_output=True, text=True, env=os.environ | {"CW_OLD": "old"}, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"env_vars": {"A": "1", "B": "${A} and ${CW_OLD} and ${CW_NOT_THERE}", "C": "$CW_OLD", "CW_OLD": "new"}},
        {"py_executable": f"{sys.executable} -S -E", "env_vars": {"OMP_NUM_THREADS": "1"}},
        {"command_prefix": ["export", "CW_PREFIX=1", "&&"], "java_jars": ["a.jar"]},
    ],
)
def test_it_does_what_rays_own_program_does(context: dict[str, Any], tmp_path: Path) -> None:
    words = ("--a=b c", "--d='e'", "$HOME", "", "--session-name=s")
    found = [after(setup, context, *words, folder=tmp_path) for setup in (RAYS, OURS)]
    assert found[0] == found[1]
    assert found[1]["words"][1:] == list(words)


def test_it_imports_nothing_of_ray(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise SystemExit('ray was imported')")
    assert after(OURS, {}, folder=tmp_path, python=("-S", "-E"))["words"]


def test_another_entry_point_is_left_to_rays_own_program(tmp_path: Path) -> None:
    (tmp_path / worker_setup.RAYS_OWN).write_text("import sys; print('[\"own\"]')")
    assert after(OURS, {"override_worker_entrypoint": "/other.py"}, folder=tmp_path) == ["own"]
