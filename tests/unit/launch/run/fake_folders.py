"""Checkpoints without a disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.unit.launch.run.world import World


class FakeFolders:
    """Keeps the states that were committed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.states: list[dict[str, Any]] = []

    def begin(self, update: int) -> Path:
        return Path(f"writing-{update}")

    def give_up(self, temporary: Path) -> None:
        self.world.events.append(("give up", temporary.name))

    def score(self, update: int, value: float) -> None:
        self.world.events.append(("score", update, value))

    def commit(self, temporary: Path, state: dict[str, Any]) -> object:
        self.world.events.append(("commit", state["updates"]))
        self.states.append(state)
        return temporary
