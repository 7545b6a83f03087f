"""Benchmarks by their short names: where they live on the Hugging Face hub. Any other source is a file, a folder or a hub id."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSet:
    """A benchmark and how it is usually reported."""

    source: str  # hub id, with its configuration behind a colon
    split: str
    samples: int  # n of mean@n that papers report


NAMED_SETS = {
    "math500": NamedSet(source="HuggingFaceH4/MATH-500", split="test", samples=1),
    "gsm8k": NamedSet(source="openai/gsm8k:main", split="test", samples=1),
    "amc": NamedSet(source="AI-MO/aimo-validation-amc", split="train", samples=8),
    "aime24": NamedSet(source="HuggingFaceH4/aime_2024", split="train", samples=8),
}
