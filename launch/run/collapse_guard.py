"""What a run does about a collapse: says it, waits for a person, or ends (`collapse.on_collapse`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from corewarding.launch.report.log import Watch
from corewarding.rewards.collapse import CollapseAlarm
from corewarding.rewards.settings import CollapseSettings

POLL_S = 0.5


class CollapseGuard:
    """Sees the metrics of each update. They come while the next update is made, so a run answers one update late."""

    def __init__(self, settings: CollapseSettings, watch: Watch, *, questions_per_update: int) -> None:
        """Shows the alarm the updates from before a resume."""
        self._settings, self._watch = settings, watch
        self._alarm = CollapseAlarm(settings, questions_per_update=questions_per_update)
        for row in watch.earlier_updates():
            self._alarm.seen(row["update"], row)
        self.unanswered: str | None = None  # alarms on which the run must pause or stop

    def seen(self, update: int, scalars: Mapping[str, float]) -> None:
        """Says what this update raises."""
        alarms = self._alarm.seen(update, scalars)
        for alarm in alarms:
            self._watch.terminal.say(str(alarm))
        if alarms and self._settings.on_collapse != "warn":
            self.unanswered = "; ".join(map(str, alarms))

    @property
    def stops(self) -> str | None:
        """Why the run must end; None where it need not."""
        return self.unanswered if self._settings.on_collapse == "stop" else None

    async def pause(self, update: int, *, alive: Callable[[], None]) -> None:
        """Returns when a person lets the run go on; calls `alive` until then, so that no watchdog ends it."""
        if self.unanswered is None or self.stops:
            return
        file = self._watch.continue_file
        self._watch.terminal.say(
            f"paused after update {update}; `touch {file}` lets it go on; ended instead, it resumes from its last checkpoint"
        )
        while not file.exists():
            await asyncio.sleep(POLL_S)
            alive()
        file.unlink()
        self.unanswered = None
        self._watch.terminal.say("goes on")
