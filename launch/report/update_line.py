"""One update for people: a row of a table on a terminal, a line with names in a log file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text


@dataclass(frozen=True, slots=True)
class Column:
    """One number of an update."""

    name: str  # in a log line
    head: str  # over the table's column
    key: str
    form: str
    width: int
    style: str = ""
    logged: bool = True  # in log lines too


REWARD = Column("reward", "reward", "reward/mean", "{:.2f}", 6, "bold green")
COLUMNS = (
    REWARD,
    Column("label acc", "label", "label/accuracy_frac", "{:.2f}", 5, "green"),
    Column("vote", "vote", "label/share_mean", "{:.2f}", 4),
    Column("entropy", "entropy", "policy/entropy", "{:.3f}", 7),
    Column("len", "len", "length/tokens_mean", "{:.1f}", 6),
    Column("stale", "stale", "staleness/question_mean", "{:.2f}", 5),
    Column("compl/s", "compl/s", "throughput/completions_per_s", "{:.0f}", 7, "cyan"),
    Column("idle", "idle", "time/learner_idle_frac", "{:.0%}", 4),
    Column("max", "oldest", "staleness/max", "{:.0f}", 6),
    Column("publish", "publish", "time/publish_s", "{:.2f}s", 7),
    Column("cut", "cut", "length/truncated_frac", "{:.0%}", 4, logged=False),
    Column("grad", "grad", "train/grad_norm", "{:.2f}", 6, logged=False),
    Column("KL", "KL", "kl/mean", "{:.3f}", 6, logged=False),
)
"""In the order in which a terminal that grows wider shows them."""
_GAP = 2
_LEFT = 7  # time left, h:mm:ss


def log_line(update: int, total: int, scalars: Mapping[str, float], left: str) -> str:
    """One line with the name of each number; numbers that this update lacks are left out."""
    fields = [f"{c.name} {c.form.format(scalars[c.key])}" for c in COLUMNS if c.logged and c.key in scalars]
    return "  ".join([f"update {update:>4}/{total}", *fields, f"left {left}"])


def shown(total: int, width: int) -> tuple[Column, ...]:
    """The columns that a terminal of `width` characters has room for."""
    room = width - 1 - _first(total) - _GAP - _LEFT  # a full last column would wrap on some terminals
    count = 0
    for column in COLUMNS:
        room -= _GAP + column.width
        if room < 0:
            break
        count += 1
    return COLUMNS[:count]


def header(total: int, columns: Sequence[Column]) -> Text:
    """The names over the columns."""
    cells = [f"{'update':>{_first(total)}}", *(f"{c.head:>{c.width}}" for c in columns), f"{'left':>{_LEFT}}"]
    return Text((" " * _GAP).join(cells), style="bold")


def row(update: int, total: int, scalars: Mapping[str, float], left: str, columns: Sequence[Column]) -> Text:
    """One update under the header; a number that this update lacks is a dash."""
    cells = [Text(f"{f'{update}/{total}':>{_first(total)}}", style="dim")]
    for column in columns:
        value = column.form.format(scalars[column.key]) if column.key in scalars else "-"
        cells.append(Text(f"{value:>{column.width}}", style=column.style))
    cells.append(Text(f"{left:>{_LEFT}}", style="dim"))
    return Text(" " * _GAP).join(cells)


def duration(seconds: float) -> str:
    """m:ss, or h:mm:ss from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _first(total: int) -> int:
    return max(len("update"), 2 * len(str(total)) + 1)
