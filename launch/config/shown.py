"""What of a configuration is shown to people: the keys that differ from the defaults, and secrets as ***."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from corewarding.launch.config.secrets import masked
from corewarding.launch.config.tree import RunSettings, TrainConfig


def differing(config: TrainConfig) -> dict[str, Any]:
    """The keys whose values are not the defaults, nested as in a YAML file; secrets are masked."""
    mine, default = config.model_dump(mode="json"), TrainConfig().model_dump(mode="json")
    default["run"]["root"] = str(Path(RunSettings().root).resolve())  # loading a configuration makes it absolute
    found: dict[str, Any] = {}
    for name, value in mine.items():
        if isinstance(getattr(config, name), dict) or not isinstance(value, dict):
            kept = value if value != default[name] else None
        else:
            kept = {key: its for key, its in value.items() if its != default[name][key]} or None
        if kept is not None:
            found[name] = masked(kept)
    return found


def compact_yaml(content: Mapping[str, Any], width: int) -> str:
    """YAML with a section per line, `train: {updates: 40, lr: 0.0002}`, broken between keys where a line would exceed `width`."""
    lines: list[str] = []
    for name, value in content.items():
        if not isinstance(value, Mapping) or not value:
            lines.append(f"{name}: {_inline(value)}")
            continue
        items = [f"{key}: {_inline(its)}" for key, its in value.items()]
        line = f"{name}: {{{items[0]}"
        for item in items[1:]:
            if len(line) + len(item) + 3 > width:  # a comma, a space, and a brace or comma behind it
                lines.append(f"{line},")
                line = f"  {item}"
            else:
                line += f", {item}"
        lines.append(f"{line}}}")
    return "\n".join(lines)


def _inline(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
