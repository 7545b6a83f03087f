"""Reads of answers are counted by reader; without answers there is nothing to read."""

from __future__ import annotations

import pickle
from typing import cast

import pytest

from corewarding.questions.gold import GoldAnswers, Reader


def test_reads_are_counted_by_reader() -> None:
    gold = GoldAnswers({"a": "1", "b": "2"})
    assert gold.read("a", reader="eval") == "1"
    assert gold.read("b", reader="diagnostics") == "2"
    assert gold.labels_read == 0
    assert gold.read("a", reader="reward") == "1"
    assert gold.reads == {"reward": 1, "diagnostics": 1, "eval": 1}
    assert gold.labels_read == 1


def test_a_look_that_finds_nothing_counts() -> None:
    gold = GoldAnswers.without()
    assert gold.read("a", reader="reward") is None
    assert gold.labels_read == 1
    assert len(gold) == 0
    assert "a" not in gold


def test_an_unknown_reader_is_refused() -> None:
    with pytest.raises(KeyError, match="anyone"):
        GoldAnswers({"a": "1"}).read("a", reader=cast(Reader, "anyone"))


def test_a_pickled_copy_holds_the_answers_and_counts_alone() -> None:
    gold = GoldAnswers({"a": "1"})
    copy = pickle.loads(pickle.dumps(gold))
    assert copy.read("a", reader="reward") == "1"
    assert (copy.labels_read, gold.labels_read) == (1, 0)
    assert "a" in copy


def test_the_answers_are_not_printed() -> None:
    assert "secret" not in repr(GoldAnswers({"a": "secret"}))


def test_the_answers_are_copied_at_the_door() -> None:
    answers = {"a": "1"}
    gold = GoldAnswers(answers)
    answers["a"] = "2"
    assert gold.read("a", reader="eval") == "1"
