"""Writes docs/grafana/dashboard.json, the charts of layout.py as a Grafana dashboard: a hover on a panel says what its tags mean.

python -m corewarding.launch.report.board.grafana > docs/grafana/dashboard.json
"""

from __future__ import annotations

import json
import re
from typing import Any

from corewarding.launch.report.board.layout import CHARTS
from corewarding.launch.report.board.tags import Tag, declared, names

COMMAND = "python -m corewarding.launch.report.board.grafana > docs/grafana/dashboard.json"
PREFIX = "ray_"
"""Ray puts it before every name of a program."""
UPDATE = "corewarding_update"
"""The number of the newest update."""
BOUND = "corewarding_staleness_bound"
"""staleness.max, for the alert rules."""
_UNITS = {"share": "percentunit", "seconds": "s"}
_WIDTH, _HEIGHT = 8, 8  # of a panel; a row has 24 columns


def metric(name: str) -> str:
    """The name under which a tag goes to Prometheus, without Ray's prefix: corewarding_reward_mean."""
    return "corewarding_" + re.sub(r"\W", "_", name.replace("@", "_at_"))


def dashboard() -> dict[str, Any]:
    """The content of dashboard.json. Its variables choose the data source and the runs."""
    by_name = {one.name: one for one in declared()}
    panels: list[dict[str, Any]] = []
    top = 0
    for page, pictures in CHARTS.items():
        panels.append({"type": "row", "title": page, "gridPos": {"x": 0, "y": top, "w": 24, "h": 1}})
        for number, (title, tags) in enumerate(pictures.items()):
            left, row = number % 3 * _WIDTH, number // 3 * _HEIGHT
            place = {"x": left, "y": top + 1 + row, "w": _WIDTH, "h": _HEIGHT}
            panels.append(_panel(title, [by_name[name] for name in tags]) | {"gridPos": place})
        top += 1 + -(-len(pictures) // 3) * _HEIGHT
    return {
        "title": "Corewarding",
        "uid": "corewarding",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "type": "datasource", "query": "prometheus"},
                {
                    "name": "run",
                    "type": "query",
                    "datasource": {"type": "prometheus", "uid": "${source}"},
                    "query": f"label_values({PREFIX}{UPDATE}, run)",
                    "multi": True,
                    "includeAll": True,
                },
            ]
        },
        "panels": [{"id": number} | panel for number, panel in enumerate(panels, start=1)],
    }


def _panel(title: str, tags: list[Tag]) -> dict[str, Any]:
    every = [name for one in tags for name in names(one)]
    unit = _UNITS.get(tags[0].unit, "short")
    return {
        "type": "timeseries",
        "title": title,
        "description": "\n\n".join(f"**{one.name}** {one.description}" for one in tags),
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "expr": f'{PREFIX}{metric(name)}{{run=~"$run"}}',
                "legendFormat": f"{{{{run}}}} {name}",
            }
            for number, name in enumerate(every)
        ],
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1, ensure_ascii=False))
