"""Extraction and keys on 400 published completions of a real model, with their published extraction."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from corewarding.rewards.answers.extract import extract_answer
from corewarding.rewards.answers.key import Equivalence, answer_key, same_answer
from corewarding.rewards.voting import majority_vote
from tests.unit.rewards.rollouts import key

ROOT = Path(__file__).resolve().parents[3]
FILES = [folder / "shared/data/completions/math_50x8.jsonl" for folder in (ROOT, ROOT.parent, ROOT.parent.parent)]


def published() -> list[dict[str, object]]:
    for file in FILES:
        if file.exists():
            return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    pytest.skip("shared/data/completions/math_50x8.jsonl is not beside the repository")


def test_extraction_agrees_with_the_published_one() -> None:
    disagreements = [
        (question["question"], mine, theirs)
        for question in published()
        for text, theirs in zip(question["completions"], question["extracted"], strict=True)  # type: ignore[call-overload]
        if (mine := extract_answer(text)) is None or key(mine) != key(theirs)
    ]
    assert not disagreements  # 400 of 400 agree


def test_equality_of_keys_agrees_with_the_published_grades() -> None:
    """One of 400 differs: the published grader tells 10000 from 10{,}000."""
    differing = [
        (str(question["answer"]), answer, right)
        for question in published()
        for answer, right in zip(question["extracted"], question["grades"], strict=True)  # type: ignore[call-overload]
        if (key(answer) == key(str(question["answer"]))) != right
    ]
    assert differing == [("10{,}000", "10000", False)]


def test_the_vote_by_value_labels_at_least_as_well_as_the_vote_by_string() -> None:
    """Per question, not only on average: no label that strings get right is lost."""
    right: dict[Equivalence, set[str]] = {"canonical": set(), "exact": set()}
    for question in published():
        answers = [extract_answer(text) for text in question["completions"]]  # type: ignore[attr-defined]
        for equivalence, questions in right.items():
            label = majority_vote(answers, key=partial(answer_key, equivalence=equivalence)).answer
            if label is not None and same_answer(label, str(question["answer"])):
                questions.add(str(question["question"]))
    assert right["canonical"] >= right["exact"]
    assert len(right["canonical"]) > 25  # of 50
