"""The code keeps its shape: short files and functions, small folders, annotated signatures, no swallowed errors."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ("actors", "dataflow", "evals", "launch", "learner", "questions", "rewards", "weights", "corewarding")
FOLDERS = (*PACKAGE, "benchmarks", "examples", "tests")
FILES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if folder != "corewarding" or not any(parent.is_symlink() for parent in path.parents)
)
LONG_FILES = {"rewards/answers/parser.py"}  # the LaTeX parser
BORDERS = {
    "launch/report/trackers/threads.py",  # a tracker's client raises anything
    "evals/second_opinion.py",  # sympy raises anything on the model's text
    "benchmarks/answers.py",  # as does a scorer that is measured
    "tests/gpu/test_one_gpu.py",  # an engine's process sends its error to the test
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in caught)


def is_annotated(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    others = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    asked = [argument for argument in named + others if argument.arg not in ("self", "cls")]
    return function.returns is not None and all(argument.annotation is not None for argument in asked)


def test_no_file_is_longer_than_300_lines() -> None:
    long = {name_of(path): lines for path in FILES if (lines := path.read_text().count("\n")) > 300}
    assert {name: lines for name, lines in long.items() if name not in LONG_FILES} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    long = [
        f"{name_of(path)}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1}"
        for path in FILES
        for node in functions(path)
        if node.end_lineno - node.lineno >= 60
    ]
    assert long == []


def test_no_folder_has_more_than_14_files_at_one_level() -> None:
    sizes = Counter(name_of(path.parent) for path in FILES if path.name != "__init__.py")
    sizes.update(name_of(path.parent) for path in (ROOT / "configs").rglob("*"))
    assert {folder: size for folder, size in sizes.items() if size > 14} == {}


def test_errors_of_every_kind_are_caught_at_the_known_borders_only() -> None:
    swallowing = {
        name_of(path)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and is_broad(node)
        and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
    }
    assert swallowing == BORDERS


def test_98_percent_of_signatures_are_annotated() -> None:
    found = [
        (f"{name_of(path)}:{node.lineno} {node.name}", is_annotated(node))
        for path in FILES
        if not name_of(path).startswith("tests/")
        for node in functions(path)
    ]
    bare = [name for name, annotated in found if not annotated]
    assert len(bare) <= 0.02 * len(found), bare


def test_tests_use_no_private_name_of_another_module() -> None:
    private = []
    for path in (path for path in FILES if name_of(path).startswith("tests/")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
                names = [node.attr]
            private += [f"{name_of(path)}:{node.lineno} {name}" for name in names if re.match(r"_(?!_)", name)]
    assert private == []


def test_contributing_names_places_that_exist() -> None:
    for row in (ROOT / "CONTRIBUTING.md").read_text().splitlines():
        words = re.findall(r"`([^` ]+)`", row) if row.startswith("|") else []
        paths = [ROOT / word for word in words if "/" in word]
        assert all(path.exists() for path in paths), row
        texts = "".join(path.read_text() for path in paths if path.is_file())
        missing = [
            word for word in words if "/" not in word and word != "settings.py" and word.split(".")[-1] not in texts
        ]
        assert not missing or not texts, f"{missing} is not in the files of: {row}"
