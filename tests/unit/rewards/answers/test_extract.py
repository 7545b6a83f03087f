"""Extraction against tables written by hand."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewarding.rewards.answers.extract import extract_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so it is \boxed{7}.", "7"),
        (r"\boxed{1} or rather \boxed{2}", "2"),
        (r"\fbox{3}", "3"),
        (r"\boxed{1}, \fbox{3}", "3"),
        (r"\boxed 7", "7"),
        (r"$\boxed 7$.", "7"),
        (r"\boxed 7.5, done", "7.5"),
        (r"\boxed -1/2.", "-1/2"),
        (r"\boxed 1,234,", "1,234"),
        (r"\boxed 25\%", r"25\%"),
        (r"\boxed{ 4 }", "4"),
        ("\\boxed\n {4}", "4"),
        ("\\boxed{\n1\n}", "1"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \mid x > 0 \right\}}", r"\left\{ x \mid x > 0 \right\}"),
        (r"\boxed{\{1}", r"\{1"),
        (r"\boxed{a \\}", r"a \\"),
        (r"\boxed{\begin{pmatrix}1\\{2}\end{pmatrix}}", r"\begin{pmatrix}1\\{2}\end{pmatrix}"),
        (r"\\boxed{7}", "7"),
        (r"\\boxed{\\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\\boxed{\\{1, 2\\}}", r"\{1, 2\}"),
        (r"\\boxed{\\frac{1}{2} \pi}", r"\\frac{1}{2} \pi"),
        (r"x \\\boxed{7}", "7"),
        (r"} stray { \boxed{5} }", "5"),
    ],
)
def test_finds_the_answer(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the answer is 7",
        r"\boxed",
        r"\boxed{",
        r"\boxed{7",
        r"\boxed{\frac{1}{2}",
        r"\boxed{7\}",
        r"\boxed{}",
        r"\boxed{ }",
        r"\boxed format",
        r"\boxed 7x",
        r"\boxed 42\text{ cm}",
        r"\boxed 2^3",
        r"\boxedtimes{7}",
        r"\boxes{7}",
        r"boxed{7}",
        r"\boxed\{7\}",
        r"\boxed{\boxed{}}",
    ],
)
def test_finds_no_answer(text: str) -> None:
    assert extract_answer(text) is None


@pytest.mark.parametrize(
    "text",
    [
        r"in \boxed format ... \boxed{7}",
        r"\boxed{7}, given in \boxed format",
        r"\boxed{7}. Recall that \boxed{} was asked for",
        r"\boxed{7}. Let me check again: \boxed{12",
        r"\boxed{7}, so \boxed{\frac{1}{2}",
        r"\boxed{put it in a box: \boxed{7}",
        r"\boxed{\boxed{7}}",
        r"\boxed{x = \fbox{7}}",
        r"\boxed{x = {\boxed{7}}}",
        r"\boxed{x = \boxed 7}",
        r"\boxed{7} \boxed{3 + \boxed}",
        r"\boxed{7} \boxed{3 + {\boxed}}",
    ],
)
def test_a_box_that_is_none_leaves_the_seven(text: str) -> None:
    assert extract_answer(text) == "7"


pieces = st.lists(st.sampled_from([r"\boxed", r"\fbox", "{", "}", "\\", " ", "7", "x", r"\{", "$"]), max_size=30)


@given(pieces.map("".join))
def test_an_answer_is_a_stripped_piece_of_the_text_without_a_box(text: str) -> None:
    answer = extract_answer(text)
    if answer is not None:
        assert answer
        assert answer == answer.strip()
        assert answer in text
        assert not re.search(r"\\(boxed|fbox)(?![A-Za-z])", answer)


@given(pieces.map("".join))
def test_a_complete_box_behind_any_text_is_the_answer(text: str) -> None:
    assert extract_answer(text.rstrip("\\") + r" then \boxed{\frac{1}{2}}") == r"\frac{1}{2}"


def test_a_text_cut_inside_its_last_box_has_the_answer_before_it() -> None:
    text = r"\boxed{9} or \boxed{\frac{1}{2}}"
    first, second = text.index("}") + 1, len(text)
    assert [extract_answer(text[:cut]) for cut in range(first)] == [None] * first
    assert [extract_answer(text[:cut]) for cut in range(first, second)] == ["9"] * (second - first)
    assert extract_answer(text) == r"\frac{1}{2}"


def test_hostile_text_is_read_in_linear_time() -> None:
    start = time.process_time()
    for unit in (r"\boxed{", "{", "}", "\\", r"\boxed ", r"\boxed 1,", r"{\boxed{}"):
        extract_answer(unit * (100_000 // len(unit)))
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so 3 * 6 = 18\n#### 18", "18"),
        ("#### 17\n#### 1,800 ", "1,800"),
        ("The answer is 42.", "42"),
        ("the answer is: $\\frac{1}{2}$. Done", "$\\frac{1}{2}$"),
        ("The final answer is **7**", "7"),
        ("The answer is 3.5 metres.\nGood.", "3.5 metres"),
        (r"The answer is 3, that is \boxed{4}", "4"),
        (r"The answer is 3, that is \boxed{4", None),
        ("no idea", None),
        ("####", None),
    ],
)
def test_fallbacks_where_there_is_no_box(text: str, answer: str | None) -> None:
    assert extract_answer(text, fallbacks=("hashes", "phrase")) == answer
    assert extract_answer(text) == (answer if "boxed" in text else None)


@pytest.mark.parametrize(
    ("before", "repeated", "after", "times"),
    [
        ("answer is a", " ", "b", 100_000),
        ("", "answer is", "", 20_000),
        ("", "#### ", "", 20_000),
        ("answer is ", ". ", "", 50_000),
        ("answer", " ", "", 100_000),
    ],
)
def test_a_fallback_reads_a_long_text_once(before: str, repeated: str, after: str, times: int) -> None:
    """Eight times the text takes about eight times as long, and not 64 times: counted as the least of three, in CPU seconds."""

    def seconds(length: int) -> float:
        text, took = before + repeated * length + after, []
        for _ in range(3):
            began = time.process_time()
            extract_answer(text, fallbacks=("hashes", "phrase"))
            took.append(time.process_time() - began)
        return min(took)

    assert seconds(times) < 24 * seconds(times // 8) + 0.05
