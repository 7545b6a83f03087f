"""Responds to reward collapse as `collapse.on_collapse` says: warns, pauses until a user continues, or stops the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from corewarding.launch.run.protocols import Log
from corewarding.rewards.collapse import CollapseAlarm
from corewarding.rewards.settings import CollapseSettings

POLL_S = 0.2


class CollapseGuard:
    """Checks the metrics of each update. They arrive while the next update is made, so a run responds one update late."""

    def __init__(
        self, settings: CollapseSettings, log: Log, *, questions_per_update: int, poll_s: float = POLL_S
    ) -> None:
        """Shows the alarm the updates before a resume. poll_s: how often a paused run looks for its user's answer."""
        self._settings, self._log, self._poll_s = settings, log, poll_s
        self._alarm = CollapseAlarm(settings, questions_per_update=questions_per_update)
        for row in log.earlier_updates():
            self._alarm.seen(row["update"], row)
        self._unanswered: str | None = None  # alarms for which the run must pause or stop

    def seen(self, update: int, scalars: Mapping[str, float]) -> None:
        """Checks one update and prints the alarms it raises."""
        alarms = self._alarm.seen(update, scalars)
        for alarm in alarms:
            self._log.warn(str(alarm))
        if alarms and self._settings.on_collapse != "warn":
            self._unanswered = "; ".join(map(str, alarms))

    @property
    def stops(self) -> str | None:
        """The reason why the run must end; None if it may continue."""
        return self._unanswered if self._settings.on_collapse == "stop" else None

    async def pause(self, update: int, *, alive: Callable[[], None]) -> None:
        """Returns when the user lets the run continue. Until then it calls `alive`, so that the watchdog does not end the run."""
        if self._unanswered is None or self.stops:
            return
        file = self._log.continue_file
        self._log.warn(
            f"paused after update {update}; `touch {file}` lets it continue; if you end it, it resumes from its last checkpoint"
        )
        while not file.exists():
            await asyncio.sleep(self._poll_s)
            alive()
        file.unlink()
        self._unanswered = None
        self._log.say("continues")
