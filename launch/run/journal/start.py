"""The journal of a start of the run: what it says at its beginning, and how large it may become."""

from __future__ import annotations

import importlib.metadata
import uuid
from typing import Any

from corewarding.dataflow.ids import Version
from corewarding.dataflow.spans import now_s
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.run_directory import RunDir, config_text
from corewarding.learner.replay.journal.journal import JournalPlan
from corewarding.learner.replay.journal.records import Start

PACKAGES = ("torch", "transformers", "numpy")
"""A package of another version may round in another way."""
TOKEN_BYTES, PROMPT_BYTES, COMPLETION_BYTES = 12 + 4, 4, 500
"""Of a sampled token (id, log-probability, version, its text), of a prompt's token, and of everything else about a completion."""


def journal_plan(config: TrainConfig, version: Version, cursor: dict[str, Any], *, goes_on: bool) -> JournalPlan | None:
    """None if the run keeps no journal. cursor: of the questions, at the start. goes_on: with all that the journal holds."""
    if not config.keeps_journal:
        return None
    return JournalPlan(
        folder=RunDir(config.run.root, config.run.name).journal.absolute(),
        start=Start(
            start=uuid.uuid4().hex,
            goes_on=goes_on,
            incarnation=version.incarnation,
            updates=version.updates,
            time_s=now_s(),
            config=config_text(config),
            setting=setting(config),
        ),
        cursor=cursor,
    )


def setting(config: TrainConfig) -> dict[str, Any]:
    """What decides how the learner rounds."""
    chosen = {name: getattr(config.learner, name) for name in ("ranks", "threads", "deterministic")}
    return chosen | {name: importlib.metadata.version(name) for name in PACKAGES}


def journal_words(config: TrainConfig, *, longest_prompt: int) -> str:
    """How large the journal becomes at most, for the table printed at the start."""
    if not config.keeps_journal:
        return "none (journal.retain is off): the death of the replay buffer ends the run"
    each = COMPLETION_BYTES + PROMPT_BYTES * longest_prompt + TOKEN_BYTES * config.rollout.max_new_tokens
    per_update = config.completions_per_update * each
    if config.journal.retain == "all":
        return f"at most {_size(per_update * config.train.updates)} in journal/ (journal.retain: all)"
    every = config.checkpoint.every_updates or config.train.updates
    kept = min(config.train.updates, every * config.checkpoint.keep + every)
    return f"at most {_size(per_update * kept)} in journal/, older than the oldest checkpoint removed"


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.0f} MB"
