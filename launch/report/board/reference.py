"""Writes docs/metrics.md, the table of all tags, from their declarations.

python -m corewarding.launch.report.board.reference > docs/metrics.md
"""

from __future__ import annotations

from itertools import groupby

from corewarding.launch.report.board.tags import Tag, declared

COMMAND = "python -m corewarding.launch.report.board.reference > docs/metrics.md"
_HEAD = f"""\
# Metrics

Every tag of a run with its unit, its meaning, and what it looks like in a healthy run. This page is generated from
`launch/report/board/tags.toml`: `{COMMAND}`. How to read them together: [monitoring.md](monitoring.md).

`metrics.jsonl` has every scalar of every update under the name below, and so has the row of an evaluation, without `eval/`.
TensorBoard and other trackers show those marked ● by default and all with `report.scalars: all`. There a tag has its page's
number and name in front, `1_learning/reward/mean`, so that the pages come in this order. A tag appears where the run makes it:
accuracies need data with answers, the teacher's tags a rule that has a teacher. Healthy ranges are what the shipped recipes
show; a trend says more than a level.

Names in braces stand for several tags. source and channel: `policy`, `teacher`; fate: `generated`, `trained`, `withheld`, `dropped`;
moment: `eval` (before and after training), `eval_quick` (during it); n and k: numbers of samples. A metric of a plug-in stands on the
page of labels, with the first words of its function as its meaning.
"""


def reference() -> str:
    """The whole page, in Markdown."""
    parts = [_HEAD]
    for (number, page), tags in groupby(declared(), key=lambda one: (one.number, one.page)):
        rows = "\n".join(map(_row, tags))
        parts.append(
            f"## {number}. {page.capitalize()}\n\n| tag | | unit | meaning | healthy |\n|---|---|---|---|---|\n{rows}\n"
        )
    return "\n".join(parts)


def _row(one: Tag) -> str:
    shown = ("●" if one.default else "") if one.kind == "scalar" else f"● {one.kind}"
    cells = (f"`{one.name}`", shown, one.unit, one.text, one.healthy)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    print(reference(), end="")
