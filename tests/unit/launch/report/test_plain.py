"""Nothing from outside reaches the terminal as a control code, whatever prints it."""

import ast
import io
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from corewarding.launch.cli import main
from corewarding.launch.report.plain import plain, say
from corewarding.launch.report.terminal import PlainConsole

LAUNCH = Path(__file__).resolve().parents[4] / "launch"
HOSTILE = "a\x1b[2Jb\x1b]0;title\x07c\rd\u202ee\x9b1mf[bold]g[/bold]"
SHOWN = r"a\x1b[2Jb\x1b]0;title\x07c\rd\u202ee\x9b1mf[bold]g[/bold]"


@pytest.mark.parametrize("terminal", [True, False])
def test_texts_tables_titles_and_rules_are_made_plain(terminal: bool) -> None:
    out = io.StringIO()
    console = PlainConsole(file=out, width=300, force_terminal=terminal, color_system=None)
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE))
    console.print(HOSTILE)
    console.print(Text(HOSTILE))
    console.print(table)
    console.rule(HOSTILE)
    printed = out.getvalue().replace("\x1b[1m", "").replace("\x1b[3m", "").replace("\x1b[0m", "")
    assert printed == plain(printed)
    assert printed.count(SHOWN.split("\\x07")[0]) >= 5


def test_say_makes_text_plain(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    say(HOSTILE, error=True)
    assert capsys.readouterr() == (f"{SHOWN}\n", f"{SHOWN}\n")


def test_hostile_words_files_rows_and_plugins_are_shown_plain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from corewarding.launch.commands.questions.data import run as data

    file = tmp_path / "a\x1b[31mb.jsonl"
    rows = [
        f'{{"question": "what \\u001b[2J is 1 + {i}?", "answer": "\\u001b]0;x\\u0007{i}", "id": "\\u009b1m{i}"}}'
        for i in range(3)
    ]
    file.write_text("\n".join(rows))
    assert data(["inspect", str(file), "--explain"]) == 0
    plugin = tmp_path / "p\x1b[31m.py"
    plugin.write_text("raise ValueError('\\x1b[2J boom')")
    for words in (
        ["data", "inspect", str(tmp_path / "no\x1b[31m.jsonl")], ["tr\x1b[31min"], ["train", "cpu", "rule=\x1b[31m"],
        ["train", "cpu", f"plugins=[{plugin}]"], ["resume", str(tmp_path / "\x1b[31m")], ["eval", "--compare", "\x1b[31m", "\x1b[32m"],
        ["eval", "--regrade", str(tmp_path / "\x1b[31m")],
    ):  # fmt: skip
        assert main(words) == 2, words
    out, err = capsys.readouterr()
    assert out == plain(out)
    assert err == plain(err)
    assert r"\x1b[2J is 1 + 0?" in out


def test_richs_own_console_is_made_nowhere_else() -> None:
    made = [
        path
        for path in LAUNCH.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Console"
    ]
    assert made == []
