"""What TensorBoard shows of single questions: a page of completions, and a figure of the votes. All texts of a model are escaped."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corewarding.launch.report.plain import plain

_SHOWN_TEXT = 300  # characters of a completion on the page
_SHOWN_ANSWER = 12  # characters of an answer in the figure


def samples_page(rows: Sequence[Mapping[str, Any]]) -> str:
    """A markdown page with one table per question: source, answer, reward, versions and text of each completion."""
    lines: list[str] = []
    for question in dict.fromkeys(row["question"] for row in rows):
        mine = [row for row in rows if row["question"] == question]
        label = next((row["label"] for row in mine if row.get("label") is not None), None)
        votes: dict[str, int] = next((row["votes"] for row in mine if row.get("votes")), {})
        counts = ", ".join(f"{as_text(answer)}: {num}" for answer, num in votes.items())
        lines += [f"### {as_text(question)}", f"label **{as_text(label)}** from votes {counts or 'none'}", ""]
        lines += ["| who | answer | reward | versions | text |", "|---|---|---|---|---|"]
        for row in mine:
            who, text = f"{row['source']}/{row['view']}", as_text(row["text"][:_SHOWN_TEXT].replace("\n", " "))
            lines.append(
                f"| {who} | {as_text(row['answer'])} | {row.get('reward', '-')} | {row['versions']} | {text} |"
            )
        lines.append("")
    return "\n".join(lines)


def as_text(value: object) -> str:
    """The value as letters only: nothing in it is markup, a link or an image, which TensorBoard would show or fetch."""
    return "".join(
        letter if letter.isalnum() or letter == " " else f"&#{ord(letter)};" for letter in plain(str(value), keep="")
    )


def votes_figure(rows: Sequence[Mapping[str, Any]], shares: NDArray[np.float32] | None) -> tuple[int, int, bytes]:
    """(width, height, PNG): the votes on each sample question, the label's in green, and the vote shares of all questions."""
    from matplotlib.figure import Figure

    votes: dict[str, tuple[str | None, Mapping[str, int]]] = {}
    for row in rows:
        if row.get("votes"):
            votes.setdefault(row["question"], (row.get("label"), row["votes"]))
    figure = Figure(figsize=(9, 1.4 + 0.4 * len(votes)), dpi=80)
    bars, histogram = figure.subplots(1, 2, width_ratios=(2, 1))
    for place, (label, counts) in enumerate(votes.values()):
        start = 0
        for answer, num in sorted(counts.items(), key=lambda one: (one[0] != label, -one[1])):
            bars.barh(place, num, left=start, color="C2" if answer == label else "0.8", edgecolor="white")
            name = _ascii(answer[:_SHOWN_ANSWER]) if num > 1 else ""
            bars.text(
                start + num / 2, place, name, ha="center", va="center", fontsize=8, parse_math=False, clip_on=True
            )
            start += num
    names = [_ascii(question[-_SHOWN_ANSWER:]) for question in votes]
    bars.set_yticks(range(len(votes)), names, fontsize=8, parse_math=False)
    bars.invert_yaxis()
    bars.set_xlabel("votes on the sample questions (green: the label)")
    histogram.hist(np.empty(0) if shares is None else shares, bins=20, range=(0, 1), color="C0")
    histogram.set_xlabel("vote share, all questions")
    figure.tight_layout()
    image = io.BytesIO()
    figure.savefig(image, format="png")
    width, height = figure.canvas.get_width_height()
    return width, height, image.getvalue()


def _ascii(text: str) -> str:
    """Letters that every font has: matplotlib warns of each other one."""
    return plain(text, keep="").encode("ascii", "backslashreplace").decode()
