"""What is seen in a run and which knob to turn is said once: the tables of two pages are the rows of troubles.toml."""

from pathlib import Path

import pytest

from corewarding.launch.report.board.layout import CHARTS
from corewarding.launch.report.board.troubles import FILE, troubles
from corewarding.launch.view.live.panels import AGES, LANES, panels

DOCS = Path(__file__).resolve().parents[4] / "docs"
HEAD = "| you see | it means | turn |\n|---|---|---|\n"


@pytest.mark.parametrize("page", ["staleness", "monitoring"])
def test_the_table_of_the_page_has_these_rows(page: str) -> None:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert text.count(HEAD) == 1
    table = text.split(HEAD)[1].split("\n\n")[0].splitlines()
    assert table == [one.row for one in troubles() if one.page == page], f"write the rows of {FILE} into docs/{page}.md"


def test_every_panel_says_what_it_means_and_which_knob_to_turn() -> None:
    titles = {AGES, LANES, *(title for charts in CHARTS.values() for title in charts)}
    assert {title for one in troubles() for title in one.charts} == titles
    assert [panel["title"] for panel in panels() if not panel["turn"] or not panel["tags"]] == []
    assert all(tag["text"] and tag["healthy"] for panel in panels() for tag in panel["tags"])
