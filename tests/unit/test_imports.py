"""Imports go one way, and a configuration is read where neither torch nor ray is installed."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BELOW = {"dataflow": set(), "questions": {"dataflow"}, "rewards": {"dataflow"}, "weights": {"dataflow"}}
BELOW["actors"] = BELOW["learner"] = {"dataflow", "questions", "rewards", "weights"}
BELOW["evals"] = {*BELOW, "learner"}
BELOW["launch"] = {*BELOW}
OURS = {*BELOW, "transport", "models", "configs"}


def files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in (ROOT / folder).rglob("*.py")]


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", BELOW)
def test_imports_go_one_way(package: str) -> None:
    for path in files(package):
        for name in imports_of(path):
            parts = [*name.split("."), ""]
            if parts[0] == "corewarding" and parts[1] in BELOW:
                assert parts[1] in {package, *BELOW[package]}, f"{path} imports {name}"
            assert parts[0] != "tests", f"{path} imports tests"


def test_every_module_has_one_name() -> None:
    """`import actors` from a checkout would load a file a second time, under another name than `corewarding.actors`."""
    for path in files(*BELOW, "corewarding", "tests", "benchmarks"):
        for name in imports_of(path):
            assert name.split(".")[0] not in OURS, f"{path} imports {name}; write corewarding.{name}"


def test_no_circle_among_files() -> None:
    modules = {}
    for path in files(*BELOW):
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(("corewarding", *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    asked = {}
    for module, path in modules.items():
        named = {name if name in modules else name.rpartition(".")[0] for name in imports_of(path)}
        asked[module] = {name for name in named if name in modules and name != module}
    order = graphlib.TopologicalSorter(asked)
    order.prepare()  # CycleError names the circle


def test_only_the_generator_sees_the_solver() -> None:
    solver = "corewarding.questions.arithmetic.solver"
    users = [path.name for path in files(*BELOW) if any(name.startswith(solver) for name in imports_of(path))]
    assert users == ["world.py"]


def test_the_configuration_needs_neither_torch_nor_ray() -> None:
    blocked = ("torch", "ray", "transformers", "vllm", "sglang")
    code = (
        f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
        "from corewarding.launch.config import load\nimport corewarding.dataflow.codec, corewarding.rewards.rules.table\n"
        "import corewarding.questions.load, corewarding.actors.settings\n"
        "import corewarding.launch.run.preflight.early, corewarding.launch.commands.train\n"
        "print(load.load_config('configs/cpu.yaml').rule)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "co_rewarding_ii", done.stderr
