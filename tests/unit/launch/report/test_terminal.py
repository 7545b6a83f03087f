"""What a run prints: a table on a terminal, plain lines in a log, and nothing that a terminal would obey in model text."""

import io
import re
import subprocess
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console

from corewarding.launch.report.plain import plain
from corewarding.launch.report.terminal import HEADER_EVERY, Terminal
from corewarding.launch.report.update_line import COLUMNS, duration, shown

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
FULL = dict.fromkeys((column.key for column in COLUMNS), 0.987) | {
    "length/tokens_mean": 3071.9,
    "throughput/completions_per_s": 1234.6,
    "staleness/max": 4.0,
}


def shown_by(width: int | None, *, total: int = 40, updates: int = 2, scalars: dict[str, float] = FULL) -> list[str]:
    """The printed lines. width: of a terminal; None: a file."""
    console = Console(
        file=io.StringIO(), force_terminal=width is not None, width=width or 80, soft_wrap=True, highlight=False
    )
    terminal = Terminal(total_updates=total, console=console)  # not entered: without the progress line
    terminal.training()
    for update in range(1, 1 + updates):
        terminal.update(update, scalars)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def without_colour(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


@pytest.mark.parametrize("total", [4, 40, 2000, 100_000])
@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_a_table_fits_the_terminal_and_its_columns_stand_under_their_names(width: int, total: int) -> None:
    head, *rows = map(without_colour, shown_by(width, total=total))
    assert all(cell_len(line) < width for line in (head, *rows))
    ends = [match.end() for match in re.finditer(r"\S+( \S+)*", head)]
    assert ends == [match.end() for match in re.finditer(r"\S+", rows[0])]


def test_eighty_columns_have_room_for_reward_label_vote_age_and_speed() -> None:
    (head, row) = map(without_colour, shown_by(80, updates=1))
    assert head.split() == ["update", "reward", "label", "vote", "entropy", "len", "stale", "compl/s", "idle", "left"]
    assert row.split() == ["1/40", "0.99", "0.99", "0.99", "0.987", "3071.9", "0.99", "1235", "99%", "0:00"]
    assert shown(40, 200) == COLUMNS


def test_the_header_comes_again_before_it_is_out_of_sight() -> None:
    lines = [without_colour(line) for line in shown_by(80, updates=HEADER_EVERY + 1)]
    assert [number for number, line in enumerate(lines) if "reward" in line] == [0, HEADER_EVERY + 1]


def test_a_number_that_an_update_lacks_is_a_dash() -> None:
    row = without_colour(shown_by(80, updates=1, scalars={"reward/mean": 0.5})[1])
    assert row.split() == ["1/40", "0.50", *["-"] * 7, "0:00"]


def test_a_terminal_has_colour() -> None:
    assert "\x1b[1;32m" in shown_by(80)[1]


def test_a_log_file_has_one_named_line_per_update_and_no_control_code() -> None:
    lines = shown_by(None, updates=3, scalars={"reward/mean": 0.5, "staleness/max": 3.0, "time/publish_s": 0.75})
    assert lines[0] == "update    1/40  reward 0.50  max 3  publish 0.75s  left 0:00"
    assert [line.split()[1] for line in lines] == ["1/40", "2/40", "3/40"]
    assert not any(map(CONTROL.search, lines))


def test_a_terminal_shows_progress_and_a_file_does_not() -> None:
    for live in (True, False):
        console = Console(file=io.StringIO(), force_terminal=live, width=80)
        with Terminal(total_updates=4, console=console) as terminal:
            terminal.training()
            terminal.update(4, {})
            terminal.phase("evaluating after training")
        assert isinstance(console.file, io.StringIO)
        told = console.file.getvalue()
        assert ("evaluating after training" in told) == live
        assert ("4/4" in told.split("evaluating after training")[-1]) == live or not live


def test_no_control_code_reaches_a_file_even_when_colour_is_forced() -> None:
    code = (
        "from corewarding.launch.report.terminal import Terminal\n"
        "with Terminal(total_updates=4) as terminal:\n"
        "    terminal.training(); terminal.update(4, {'reward/mean': 1.0}); terminal.warn('look')\n"
        "from corewarding.launch.report.terminal import output_console\n"
        "from rich.table import Table\n"
        "table = Table('name'); table.add_row('value'); output_console().print(table)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={"FORCE_COLOR": "1", "PYTHONPATH": ":".join(sys.path), "TERM": "xterm-256color"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert told.startswith("update    4/4  reward 1.00  left 0:00\nlook\n")
    assert "│ value │" in told
    assert not CONTROL.search(told)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("so \\boxed{7} is right, ½ é 数", "so \\boxed{7} is right, ½ é 数"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("over\rwritten", "over\\rwritten"),
        ("bell\x07 back\x08 csi\x9b31m", "bell\\x07 back\\x08 csi\\x9b31m"),
        ("right\u202eto left, zero\u200bwidth, line\u2028end", "right\\u202eto left, zero\\u200bwidth, line\\u2028end"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ],
)
def test_a_terminal_obeys_nothing_in_text_of_a_model(text: str, safe: str) -> None:
    assert plain(text) == safe
    assert plain(text, keep="").isprintable()
    console = Console(file=io.StringIO(), force_terminal=True, width=200, soft_wrap=True)
    Terminal(total_updates=1, console=console).say(text)
    assert isinstance(console.file, io.StringIO)
    assert not CONTROL.search(without_colour(console.file.getvalue()).replace("\n", ""))


def test_a_long_time_left_has_hours() -> None:
    assert [duration(seconds) for seconds in (0, 59.9, 61, 3599, 3600, 90061)] == [
        "0:00", "0:59", "1:01", "59:59", "1:00:00", "25:01:01",
    ]  # fmt: skip
