"""`label.from`: one judge with four sources of labels. Co-rewarding I, II and III are majority votes with another source."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup
from corewarding.dataflow.errors import UserError
from corewarding.rewards.rules.contract import (
    POLICY_ORIGINAL,
    POLICY_REPHRASED,
    TEACHER_ORIGINAL,
    TEACHER_REPHRASED,
    GroupKind,
    LabelFrom,
)
from corewarding.rewards.rules.labels import judge_by_vote, score_question
from corewarding.rewards.rules.table import REWARD_RULES
from tests.unit.rewards.rollouts import context_of, rollouts_of

ALL: tuple[GroupKind, ...] = (POLICY_ORIGINAL, POLICY_REPHRASED, TEACHER_ORIGINAL, TEACHER_REPHRASED)
# Written out as in the paper: (trained, who labels it).
PAPER: dict[str, tuple[LabelFrom, list[tuple[GroupKind, GroupKind]]]] = {
    "co_rewarding_i": ("other_view", [(POLICY_ORIGINAL, POLICY_REPHRASED), (POLICY_REPHRASED, POLICY_ORIGINAL)]),
    "co_rewarding_ii": ("teacher", [(POLICY_ORIGINAL, TEACHER_ORIGINAL)]),
    "co_rewarding_iii": (
        "teacher_other_view",
        [(POLICY_ORIGINAL, TEACHER_REPHRASED), (POLICY_REPHRASED, TEACHER_ORIGINAL)],
    ),
    "majority_vote": ("policy", [(POLICY_ORIGINAL, POLICY_ORIGINAL)]),
}
JUDGES = [name for name, rule in REWARD_RULES.items() if rule.judge is not None]
answers = st.lists(st.sampled_from([None, "1", "1.0", "2", "1/2", "0.5", "7"]), min_size=4, max_size=4)
questions = st.tuples(answers, answers, answers, answers).map(
    lambda rows: rollouts_of(dict(zip(ALL, rows, strict=True)))
)


def told(groups: list[ScoredGroup]) -> list[tuple[object, ...]]:
    return [(group.id, group.rewards.tolist(), group.label, group.abstained, group.vote) for group in groups]


@pytest.mark.parametrize("name", PAPER)
@given(rollouts=questions, min_share=st.sampled_from([0.0, 0.5, 0.75]))
def test_the_rules_of_the_paper_are_compositions_reward_by_reward(
    name: str, rollouts: QuestionRollouts, min_share: float
) -> None:
    label_from, written = PAPER[name]
    context = context_of(min_share=min_share)
    expected = [judge_by_vote(rollouts, context, trained=trained, voters=voters) for trained, voters in written]
    assert told(REWARD_RULES[name].score(rollouts, context)) == told(expected)
    for other in PAPER:  # whatever the rule's own source is
        assert told(REWARD_RULES[other].labelled(label_from).score(rollouts, context)) == told(expected)


@pytest.mark.parametrize("name", PAPER)
def test_a_composition_is_the_rule_of_that_name_in_everything_else(name: str) -> None:
    label_from, _ = PAPER[name]
    rule, made = REWARD_RULES[name], REWARD_RULES["majority_vote"].labelled(label_from)
    for field in ("groups", "trained", "voters", "needs", "kl_reference", "kl_coef"):
        assert getattr(made, field) == getattr(rule, field), field


@pytest.mark.parametrize("label_from", ["policy", "teacher", "other_view", "teacher_other_view"])
@pytest.mark.parametrize("name", JUDGES)
@given(rollouts=questions)
def test_every_judge_takes_labels_from_everywhere(name: str, label_from: LabelFrom, rollouts: QuestionRollouts) -> None:
    rule = REWARD_RULES[name]
    if rule.both_wordings and label_from.endswith("other_view"):
        with pytest.raises(UserError, match="hears both wordings at once"):
            rule.labelled(label_from)
        return
    made = rule.labelled(label_from)
    only = QuestionRollouts(
        asked=rollouts.asked, groups={g: row for g, row in rollouts.groups.items() if (g.view, g.source) in made.groups}
    )
    scored = made.score(only, context_of())
    assert [(group.id.view, group.id.source) for group in scored] == list(made.trained)
    assert set(made.voters) <= set(made.groups)
    assert made.needs_teacher == label_from.startswith("teacher")
    assert all(np.isfinite(group.rewards).all() for group in scored)


@pytest.mark.parametrize("name", sorted(set(REWARD_RULES) - set(JUDGES)))
def test_a_rule_without_a_label_refuses_a_source(name: str) -> None:
    assert REWARD_RULES[name].labelled(None) is REWARD_RULES[name]
    with pytest.raises(UserError, match=f"label.from teacher: rule {name} elects no label"):
        REWARD_RULES[name].labelled("teacher")


def test_a_group_that_votes_in_a_greater_number_is_trained_in_part() -> None:
    rollouts = rollouts_of({POLICY_ORIGINAL: ["1", "2", "2", "2", "1", None]})
    (scored,) = REWARD_RULES["majority_vote"].score(rollouts, context_of(train_size=2))
    assert scored.label == "2"  # of six voters
    assert [completion.answer for completion in scored.completions] == ["1", "2"]
    assert scored.rewards.tolist() == [0, 1]
    for name in JUDGES:
        if not REWARD_RULES[name].both_wordings:
            (scored,) = REWARD_RULES[name].labelled("policy").score(rollouts, context_of(train_size=2))
            assert len(scored.completions) == len(scored.rewards) == 2


def test_a_bought_label_judges_in_place_of_the_rule_and_is_read_once_for_each_trained_question() -> None:
    rollouts = rollouts_of({POLICY_ORIGINAL: ["1", "2", "2"], POLICY_REPHRASED: ["2", "1", "3"]})
    reads: list[str] = []

    def known(question: str) -> str | None:
        reads.append(question)
        return "1.0" if question == "q" else None

    for name in ("co_rewarding_i", "self_harmony"):
        original, rephrased = score_question(REWARD_RULES[name], rollouts, context_of(known=known))
        assert (original.rewards.tolist(), rephrased.rewards.tolist()) == ([1, 0, 0], [0, 1, 0])
        assert (original.label, original.vote) == ("1.0", None)
    assert reads == ["q", "q"]
    elsewhere = rollouts_of({POLICY_ORIGINAL: ["1", "2", "2"]}, question="r")
    (scored,) = score_question(REWARD_RULES["majority_vote"], elsewhere, context_of(known=known))
    assert scored.rewards.tolist() == [0, 1, 1]
