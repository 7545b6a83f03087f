"""Which keys of a run may change when it continues, and a record of those that did: `changes.jsonl` in the run directory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corewarding.dataflow.spans import now_s
from corewarding.launch.config.secrets import MASK, is_secret
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.files import drop_torn_line

FILE = "changes.jsonl"
_CHANGEABLE = frozenset(
    {
        *(
            "run",
            "report",
            "eval",
            "collapse",
            "checkpoint",
            "learner",
            "engine",
            "teacher_engine",
            "publish",
            "plugins",
            "journal",
        ),
        *("rollout.policy_actors", "rollout.teacher_actors", "rollout.cpus_per_actor", "rollout.gpus_per_actor"),
        *("rollout.resources", "rollout.max_restarts", "rollout.max_failed_questions", "rollout.failure_window_s"),
        "rollout.start_timeout_s",
    }
)
"""Sections and keys that say where and how a run works. All others say what is computed, and stay for the whole run."""
_FIXED = frozenset({"learner.lora"})
"""Keys of these sections that say what is computed."""
OWN = frozenset({"run.name", "run.root", "run.resume"})
"""Keys that say where a run lies, not what it is."""
LENGTH = "train.updates"
"""May change when a run is resumed: the schedules of learning rate and teacher continue over the new total from the next update."""


@dataclass(frozen=True, slots=True)
class Change:
    """A key whose value differs from the saved one. Secrets are masked."""

    key: str
    old: Any
    new: Any

    @property
    def is_free(self) -> bool:
        """Whether the key may change in every run."""
        return self.key not in _FIXED and bool(_CHANGEABLE & {self.key, self.key.partition(".")[0]})

    def __str__(self) -> str:
        return f"{self.key}: {self.old!r} -> {self.new!r}"


def changes_between(saved: Mapping[str, Any], config: TrainConfig) -> list[Change]:
    """Keys that differ, in their order. saved: the content of config.yaml; a key that it lacks had its default."""
    return differences(saved, config.model_dump(mode="json"))


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Change]:
    """Keys that differ between the contents of two config.yaml, in their order; a key that one lacks had its default there."""
    default = dict(_flat(TrainConfig().model_dump(mode="json")))
    old, new = (default | dict(_flat(content)) for content in (first, second))
    return [
        Change(key, *((MASK, MASK) if is_secret(key) else (old.get(key), value)))
        for key, value in new.items()
        if old.get(key) != value and not (is_secret(key) and old.get(key) == MASK)
    ]


def record(folder: Path, changes: Sequence[Change], *, after_update: int) -> None:
    """Appends the changes to FILE, a line each."""
    if changes:
        rows = [
            {"time_s": now_s(), "after_update": after_update, "key": c.key, "old": c.old, "new": c.new} for c in changes
        ]
        drop_torn_line(folder / FILE)
        with (folder / FILE).open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))


def _flat(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keys of sections as section.key, each with its value; a value may be a mapping itself."""
    for key, value in content.items():
        field = TrainConfig.model_fields.get(key)
        inside = getattr(field.annotation if field is not None else None, "model_fields", None)
        if inside is not None and isinstance(value, Mapping):
            yield from ((f"{key}.{name}", its) for name, its in value.items())
        else:
            yield key, value
