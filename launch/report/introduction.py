"""What a run prints before it starts: the keys that differ from the defaults, and the sizes that follow from them."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.text import Text

from corewarding.launch.config.shown import compact_yaml, differing
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.terminal import output_console

ENDLESS = 10**6  # a log file has no width: one line per section


def introduce(config: TrainConfig, facts: Mapping[str, str], *, console: Console | None = None) -> None:
    """Prints the differing keys as YAML, which is a configuration file itself, and `facts`, a line each."""
    console = console or output_console()
    text = Text(compact_yaml(differing(config), console.width if console.is_terminal else ENDLESS))
    text.highlight_regex(r"(?m)^\w+:", "bold cyan")
    text.highlight_regex(r"(?<=[{ ])\w+(?=: )", "cyan")
    console.print(text)
    console.print()
    width = max(map(len, facts))
    for name, fact in facts.items():
        console.print(Text(f"{name:<{width}}", style="bold"), Text(fact), sep="  ")
    console.print()
