"""A question is kept in all its views or dropped; prompts that cannot fit are refused before the start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from corewarding.dataflow.carriers import Question
from corewarding.dataflow.errors import DataError, DataSetError
from corewarding.questions.gold import GoldAnswers
from corewarding.questions.load import QuestionSet
from corewarding.questions.prompts import prepare
from corewarding.questions.template import PromptTemplate


@pytest.fixture(scope="module")
def template(tokenizer_folder: Path) -> PromptTemplate:
    return PromptTemplate.from_folder(tokenizer_folder, system_prompt="")


@pytest.fixture
def question_set() -> QuestionSet:
    questions = [
        Question(id="short", original="a" * 10, rephrased="b" * 20),
        Question(id="long original", original="a" * 31, rephrased="b"),
        Question(id="long rephrasing", original="a", rephrased="b" * 31),
        Question(id="at the bound", original="a" * 30, rephrased="b" * 30),
    ]
    return QuestionSet(questions=questions, gold=GoldAnswers.without(), source="four questions")


def test_a_question_is_dropped_if_either_view_is_too_long(template: PromptTemplate, question_set: QuestionSet) -> None:
    frame = len(template.token_ids(""))
    prepared = prepare(question_set, template, views=("original", "rephrased"), max_prompt_tokens=frame + 30)
    assert [question.id for question in prepared.questions] == ["short", "at the bound"]
    assert (prepared.num_dropped, prepared.longest) == (2, frame + 30)
    assert sorted(prepared.prompts) == [
        ("at the bound", "original"),
        ("at the bound", "rephrased"),
        ("short", "original"),
        ("short", "rephrased"),
    ]
    np.testing.assert_array_equal(prepared.prompts["short", "rephrased"], template.token_ids("b" * 20))


def test_a_view_that_is_not_asked_is_not_judged(template: PromptTemplate, question_set: QuestionSet) -> None:
    frame = len(template.token_ids(""))
    prepared = prepare(question_set, template, views=("original",), max_prompt_tokens=frame + 30)
    assert [question.id for question in prepared.questions] == ["short", "long rephrasing", "at the bound"]
    assert {view for _, view in prepared.prompts} == {"original"}


def test_nothing_left_is_an_error(template: PromptTemplate, question_set: QuestionSet) -> None:
    with pytest.raises(DataSetError, match=r"no question remains under data\.max_prompt_tokens=5 \(of 4.*shortest has"):
        prepare(question_set, template, views=("original", "rephrased"), max_prompt_tokens=5)
    empty = QuestionSet(questions=[], gold=GoldAnswers.without(), source="empty")
    with pytest.raises(DataSetError, match="there are none"):
        prepare(empty, template, views=("original",), max_prompt_tokens=5)


def test_a_completion_must_fit_behind_the_longest_prompt(template: PromptTemplate, question_set: QuestionSet) -> None:
    longest = len(template.token_ids("")) + 31
    fits = prepare(
        question_set,
        template,
        views=("original",),
        max_prompt_tokens=512,
        max_model_len=longest + 64,
        max_new_tokens=64,
    )
    assert fits.longest == longest
    with pytest.raises(
        DataSetError,
        match=rf"\({longest} tokens\) and rollout\.max_new_tokens=65.*engine\.max_model_len.*max_new_tokens to 64",
    ):
        prepare(
            question_set,
            template,
            views=("original",),
            max_prompt_tokens=512,
            max_model_len=longest + 64,
            max_new_tokens=65,
        )


def test_a_missing_wording_is_named(template: PromptTemplate) -> None:
    bare = QuestionSet(questions=[Question(id="x", original="a")], gold=GoldAnswers.without(), source="bare")
    with pytest.raises(DataError, match="question x has no rephrased wording"):
        prepare(bare, template, views=("original", "rephrased"), max_prompt_tokens=512)
