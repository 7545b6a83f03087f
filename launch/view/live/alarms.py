"""What a reader must see first: how the run ended, and which alarms its numbers raise, by the alarm and the settings of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from corewarding.launch.report.board.tags import tag
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.report.tables.runs import Status, failure_of
from corewarding.launch.view.live.numbers import Numbers
from corewarding.rewards.collapse import SIGNALS, CollapseAlarm
from corewarding.rewards.settings import CollapseSettings

NEWEST = 3
"""Updates in a row in which a number is outside its healthy range before that is a warning."""


def ending(run_dir: RunDir, status: Status) -> list[dict[str, Any]]:
    """The alarm of a run that failed or was interrupted."""
    if status == "failed":
        return [_alarm("bad", "the run failed", failure_of(run_dir))]
    if status == "interrupted":
        how = f"`corewarding resume {run_dir.path}` goes on"
        return [_alarm("warn", "the run was interrupted", f"stopped by a signal, or killed; {how}")]
    return []


def collapse(
    numbers: Numbers, settings: CollapseSettings, questions_per_update: int
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The alarms of collapse, those that still hold as bad, earlier ones as past; and the thresholds by tag."""
    alarm = CollapseAlarm(settings, questions_per_update=questions_per_update)
    names = {tag: name for name, tag in SIGNALS.items()}
    raised = [one for update, row in numbers.rows(names) for one in alarm.seen(update, row)]
    newest = {one.signal: one for one in raised if one.signal in alarm.raised}
    found = []
    for one in raised:
        holds = newest.get(one.signal) is one
        words = "collapse" if holds else "collapse, and it has gone by since"
        found.append(_alarm("bad" if holds else "past", words, str(one), tag=SIGNALS[one.signal], update=one.update))
    found.sort(key=lambda one: one["level"] != "bad")
    return found, {SIGNALS[name]: round(value, 4) for name, value in alarm.thresholds.items()}


def unhealthy(numbers: Numbers, names: Sequence[str]) -> list[dict[str, Any]]:
    """Warnings for tags whose newest values are all outside the range that tags.toml calls healthy."""
    found = []
    for name in names:
        one, newest = tag(name), list(numbers.values(name).values())[-NEWEST:]
        low = one.above is not None and all(value <= one.above for value in newest)
        high = one.below is not None and all(value >= one.below for value in newest)
        if len(newest) == NEWEST and (low or high):
            text = f"{name} {newest[-1]:.3g}; healthy: {one.healthy}"
            found.append(_alarm("warn", "not healthy", text, tag=name, update=numbers.last))
    return found


def settings_of(saved: Mapping[str, Any]) -> tuple[CollapseSettings, int]:
    """collapse.* and train.questions_per_update of a config.yaml; the defaults where it is of another version."""
    try:
        settings = CollapseSettings.model_validate(saved.get("collapse") or {})
    except ValidationError:
        settings = CollapseSettings()
    train = saved.get("train")
    questions = train.get("questions_per_update") if isinstance(train, dict) else None
    return settings, questions if isinstance(questions, int) else 0


def _alarm(level: str, title: str, text: str, *, tag: str | None = None, update: int | None = None) -> dict[str, Any]:
    return {"level": level, "title": title, "text": text, "tag": tag, "update": update}
