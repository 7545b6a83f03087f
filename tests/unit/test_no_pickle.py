"""Nothing in the package turns bytes into code: no pickle in any disguise, no eval, no shell."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ("actors", "corewarding", "dataflow", "evals", "launch", "learner", "questions", "rewards", "weights")
MODULES = {
    "pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle", "multiprocessing.connection",
    "multiprocessing.managers", "ray.cloudpickle", "torch.serialization",
}  # fmt: skip
CALLS = {
    "torch.load", "torch.jit.load", "numpy.load", "np.load", "pandas.read_pickle", "yaml.unsafe_load", "yaml.full_load", "os.system",
    "os.popen", "eval", "exec",
}  # fmt: skip
OBJECTS = {
    "all_gather_object", "broadcast_object_list", "gather_object", "scatter_object_list", "send_object_list", "recv_object_list",
    "broadcast_object", "gather_object_list", "reduce_scatter_object",
}  # fmt: skip
"""torch's collectives of Python objects: each member unpickles what the others sent."""


def name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def problems(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
            yield from sorted(names & (MODULES | CALLS))
            yield from (alias.name for alias in node.names if alias.name in OBJECTS)
        elif isinstance(node, ast.Attribute) and node.attr in OBJECTS:
            yield node.attr
        elif isinstance(node, ast.Call):
            name = name_of(node.func)
            arguments = {keyword.arg: keyword.value for keyword in node.keywords}
            if name in CALLS:
                yield name
            for flag in ("shell", "allow_pickle", "trust_remote_code"):
                if flag in arguments and not (isinstance(value := arguments[flag], ast.Constant) and not value.value):
                    yield f"{name}({flag}=...)"
            if name == "yaml.load" and not name_of(arguments.get("Loader", node.func)).endswith(
                ("SafeLoader", "_UniqueKeyLoader")
            ):
                yield name


def test_the_package_never_unpickles_and_never_runs_text() -> None:
    files = [path for folder in PACKAGE for path in (ROOT / folder).rglob("*.py") if not path.is_symlink()]
    assert len(files) > 100
    found = {
        f"{path.relative_to(ROOT)}: {problem}" for path in files for problem in problems(ast.parse(path.read_text()))
    }
    assert found == set()


def test_each_way_is_recognised() -> None:
    source = """
import pickle
from ray import cloudpickle
from torch.distributed import all_gather_object
dist.broadcast_object_list([1])
torch.load(path, weights_only=True)
np.load(path, allow_pickle=True)
subprocess.run(words, shell=True)
yaml.load(text, Loader=yaml.Loader)
yaml.load(text)
eval("1")
"""
    assert sorted(problems(ast.parse(source))) == [
        "all_gather_object", "broadcast_object_list", "eval", "np.load", "np.load(allow_pickle=...)", "pickle", "ray.cloudpickle",
        "subprocess.run(shell=...)", "torch.load", "yaml.load", "yaml.load",
    ]  # fmt: skip
