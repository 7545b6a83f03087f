"""Evaluation sets by their short names, for `--data NAME`. Any other source is a file, a folder or a hub id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from corewarding.dataflow.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSet:
    """A benchmark and how it is usually reported."""

    source: str  # file, folder or hub id; a hub id may carry its configuration after a colon
    split: str = "test"
    samples: int = 8  # n of mean@n that papers report
    columns: Mapping[str, str] = field(default_factory=dict)  # as data.columns
    reader: str = "auto"  # as data.reader


NAMED_SETS: Registry[NamedSet] = Registry("evaluation set")
NAMED_SETS.register("math500", NamedSet(source="HuggingFaceH4/MATH-500", samples=1))
NAMED_SETS.register("gsm8k", NamedSet(source="openai/gsm8k:main", samples=1))
NAMED_SETS.register("amc", NamedSet(source="AI-MO/aimo-validation-amc", split="train"))
NAMED_SETS.register("aime24", NamedSet(source="HuggingFaceH4/aime_2024", split="train"))


def evaluation_set(
    name: str,
    *,
    source: str,
    split: str = "test",
    samples: int = 8,
    columns: Mapping[str, str] | None = None,
    reader: str = "auto",
) -> NamedSet:
    """Registers an evaluation set for `corewarding eval --data NAME`. For plug-ins.

    source: file, folder or hub id. samples: n of mean@n and maj@n if the command names none. columns, reader: as data.columns and
    data.reader.
    """
    row = NamedSet(source=source, split=split, samples=samples, columns=dict(columns or {}), reader=reader)
    return NAMED_SETS.register(name, row, depth=2)
