"""Every message of ours that ends a run has its entry in docs/troubleshooting.md, and every entry is a message of ours."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("actors", "dataflow", "evals", "launch", "learner", "questions", "rewards", "weights")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
ENTRIES = [
    entry
    for row in (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8").splitlines()
    if row.startswith("| `")
    for entry in re.findall(r"`([^`]+)`", row.split(" | ")[0])
]
GAP = "\0"
"""Stands for a value in a message."""
END = "\1"
"""Stands between two messages."""
LEAST = 8
"""Letters of its own that a message needs to be recognised; a shorter one passes on another error."""


def text_of(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
    return GAP


def run_errors() -> set[str]:
    """RunError and all classes derived from it, by name."""
    bases = {
        node.name: {ast.unparse(base).split(".")[-1] for base in node.bases}
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {"RunError"}
    while more := {name for name, its in bases.items() if its & found} - found:
        found |= more
    return found


def raised() -> Iterator[tuple[str, str]]:
    """(place, message) of every error of a run that is raised with a message of its own."""
    kinds = run_errors()
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                text = text_of(node.exc.args[0])
                if ast.unparse(node.exc.func).split(".")[-1] in kinds and len(text.replace(GAP, "").strip()) >= LEAST:
                    yield f"{name}:{node.lineno}", text


def pattern(entry: str) -> re.Pattern[str]:
    return re.compile(f"[^{END}]*".join(re.escape(piece.strip()) for piece in entry.split("...")))


def test_there_are_many_of_them() -> None:
    assert len(list(raised())) > 80
    assert len(ENTRIES) == len(set(ENTRIES)) > 60


def test_every_message_that_ends_a_run_has_its_entry() -> None:
    patterns = [pattern(entry) for entry in ENTRIES]
    missing = [(place, text) for place, text in raised() if not any(one.search(text) for one in patterns)]
    assert missing == []


def test_every_entry_is_a_message_of_ours() -> None:
    nodes = (node for tree in TREES.values() for node in ast.walk(tree))
    texts = {text_of(node) for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr)}
    whole = END.join(text for text in texts if len(text) >= LEAST)
    assert [entry for entry in ENTRIES if not pattern(entry).search(whole)] == []
