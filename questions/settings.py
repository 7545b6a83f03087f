"""Keys of the data: which questions are asked and how a prompt is made of one. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from corewarding.dataflow.settings import Questions, Settings, Tokens

DEFAULT_SYSTEM_PROMPT = r"Let's think step by step and output the final answer within \boxed{}."
"""The system message of the paper's recipes and of the built-in base model."""


class DataSettings(Settings):
    """Training and held-out questions. A source is a Parquet, JSONL, JSON or CSV file, a folder, or a Hugging Face datasets id."""

    kind: Literal["arithmetic", "files"] = "arithmetic"
    """`arithmetic`: the built-in world, generated from a seed. `files`: the sources `train`, `rephrased` and `heldout`."""
    train: str | None = None
    """Source of the training questions in their original wording. A hub id may carry a configuration after a colon
    (`openai/gsm8k:main`). Columns: `question` (or `problem`, `prompt`), and optionally `answer` (or `solution`), `id`,
    `rephrased`; or verl's `prompt`, `extra_info.index`, `reward_model.ground_truth`."""
    train_split: str = "train"
    """Split of `train` if it is a folder or a hub id."""
    rephrased: str | None = None
    """Source of the same questions in other words: row by row the same ids as `train`. Needed by rules that ask both views,
    unless `train` has a column `rephrased`; other rules do not read it."""
    rephrased_split: str = "train"
    """Split of `rephrased` if it is a folder or a hub id."""
    heldout: str | None = None
    """Source of the held-out questions, with answers; None: no evaluation."""
    heldout_split: str = "test"
    """Split of `heldout` if it is a folder or a hub id."""
    heldout_overlap: Literal["drop", "keep"] = "drop"
    """Held-out questions whose text is also a training question: `drop` leaves them out of the evaluation;
    `keep` evaluates on them too, as published figures do. They are counted and reported either way."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Columns with other names, as {question: prompt, answer: solution}; fields are question, answer, id and rephrased, and a dot
    reaches into a struct (reward_model.ground_truth)."""
    heldout_columns: dict[str, str] | None = None
    """Columns of `heldout` with other names; None: as `columns`."""
    reader: str = "auto"
    """How rows become questions: `plain`, `verl`, a plug-in's reader, or `auto`, which chooses by the columns."""
    heldout_reader: str | None = None
    """How rows of `heldout` become questions; None: as `reader`."""
    limit: Questions | None = Field(default=None, ge=1)
    """Use only the first so many training questions of `train`; None: all."""
    num_train: Questions = Field(default=2048, ge=1, le=10**6)
    """Training questions of the arithmetic world."""
    num_heldout: Questions = Field(default=512, ge=1, le=10**6)
    """Held-out questions of the arithmetic world; none of them is a training question."""
    levels: tuple[Annotated[int, Field(ge=1, le=3)], ...] = Field(default=(1, 2, 3), min_length=1)
    """Levels of difficulty of the arithmetic world that are mixed."""
    system_prompt: str = DEFAULT_SYSTEM_PROMPT
    """System message before every question; replaces one in the data set. Empty: none."""
    max_prompt_tokens: Tokens = Field(default=512, ge=1)
    """Longest prompt, in tokens with its template; a question is dropped if any wording that is asked is longer."""
