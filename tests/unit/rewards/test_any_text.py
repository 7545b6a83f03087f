"""Nothing that a model writes raises, from its text to its reward."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewarding.dataflow import codec
from corewarding.dataflow.carriers import Completion, QuestionRollouts
from corewarding.rewards.answers.extract import extract_answer
from corewarding.rewards.diagnostics import reward_diagnostics
from corewarding.rewards.rules.table import REWARD_RULES
from tests.unit.rewards.answers.test_laws import spliced, token_soup
from tests.unit.rewards.rollouts import context_of, key, rollouts_of

LABELLED = ("ground_truth", "majority_vote", "co_rewarding_i", "co_rewarding_ii", "co_rewarding_iii")
texts = token_soup | spliced.map(lambda text: rf"so \boxed{{{text}}}") | st.text()  # st.text() has no lone surrogates


def _rollouts(texts: list[str]) -> QuestionRollouts:
    """Every group of one question with these texts as completions, each encoded and decoded."""
    kinds = [(view, source) for view in ("original", "rephrased") for source in ("policy", "teacher")]
    rollouts = rollouts_of({kind: [None] * len(texts) for kind in kinds})  # type: ignore[misc]
    groups = {
        group: tuple(
            codec.decode_as(codec.encode(dataclasses.replace(one, text=text, answer=extract_answer(text))), Completion)
            for one, text in zip(members, texts, strict=True)
        )
        for group, members in rollouts.groups.items()
    }
    return dataclasses.replace(rollouts, groups=groups)


@pytest.mark.parametrize("rule", LABELLED)
@given(texts=st.lists(texts, min_size=2, max_size=4), gold=texts)
def test_any_texts_are_scored_by_every_rule_that_reads_answers(rule: str, texts: list[str], gold: str) -> None:
    rollouts = _rollouts(texts)
    scored = REWARD_RULES[rule].score(rollouts, context_of(gold=lambda question: gold))
    assert all(set(group.rewards.tolist()) <= {0.0, 1.0} for group in scored)
    reward_diagnostics([rollouts], scored, key=key, gold=lambda question: gold)
