"""Imports go one way, and a configuration is read where neither torch nor ray is installed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {
    "dataflow": set(),
    "questions": {"dataflow"},
    "rewards": {"dataflow"},
    "transport": {"dataflow"},
    "actors": {"dataflow", "questions", "rewards", "transport"},
    "learner": {"dataflow", "questions", "rewards", "transport"},
    "evals": {"dataflow", "questions", "rewards", "transport", "actors", "learner"},
    "launch": {"dataflow", "questions", "rewards", "transport", "actors", "learner", "evals"},
}


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        for name in imports_of(path):
            other = name.split(".")[0]
            assert other == package or other not in MAY_IMPORT or other in MAY_IMPORT[package], f"{path} imports {name}"
            assert other != "tests", f"{path} imports tests"


def test_only_the_generator_sees_the_solver():
    files = [path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py")]
    users = [path.name for path in files if "questions.arithmetic_solver" in set(imports_of(path))]
    assert users == ["arithmetic.py"]


def test_the_configuration_needs_neither_torch_nor_ray():
    blocked = ("torch", "ray", "transformers", "vllm", "sglang")
    code = (
        f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
        "import launch.config, dataflow.codec, rewards.rules, questions.load, actors.settings\n"
        "print(launch.config.load_config('configs/cpu.yaml').rule)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "co_rewarding_ii", done.stderr
