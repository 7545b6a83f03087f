"""Keys of answers: classes written by hand, and what makes them usable for votes."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.normalize import MAX_CHARS, answer_key


def key(answer: str) -> str:
    return answer_key(answer, equivalence="canonical")


CLASSES = [
    ["7", " 7 ", "$7$", "$$7$$", r"\(7\)", r"\[7\]", "7.", "7.0", "+7", "007", "{7}", r"\frac{14}{2}", r"\text{7}"],
    ["1/2", r"\frac{1}{2}", r"\dfrac{1}{2}", r"\tfrac12", r"\frac12", r"\frac 12", r"\frac{1}2", "0.5", ".50", "2/4"],
    ["-1/2", r"-\frac{1}{2}", r"\frac{-1}{2}", r"\frac{1}{-2}", "-0.5", "−0.5"],
    ["5/4", "1.25", r"1\frac{1}{4}", r"1\frac14", "1 1/4"],
    ["-5/4", r"-1\frac{1}{4}"],
    ["11/4", "2.75"],
    ["10000", "10,000", r"10{,}000", r"10,\!000", r"10\,000", "10000.00"],
    ["0", "-0", "0.0", "0/3"],
    ["1/3", r"\frac{1}{3}"],
    ["333/1000", "0.333"],
    ["25%", r"25\%", r"25 \%", r"25.0\%", r"$25\%$"],
    ["25", "25."],
    ["1/4", "0.25"],
    ["48", r"48^\circ", r"48^{\circ}", "48°", r"48^ \circ", r"48\text{ degrees}"],
    ["6", r"\$6", r"\$6.00"],
    ["6cm", r"6\text{ cm}", r"6 \mathrm{cm}", "6 cm"],
    ["6m", r"6\text{ m}"],
    [r"(\frac{4}{3},1)", r"\left( \frac43, 1 \right)", r"\bigl(\dfrac{4}{3},\;1\bigr)"],
    [r"\frac{\sqrt{6}}{3}", r"\frac{\sqrt6}3", r"\dfrac{\sqrt 6}{3}"],
    [r"2\pi", r"2 \pi", "2π", r"2\,\pi"],
    ["x^2+3x", "x^{2} + 3 x"],
    ["3 4"],
    ["117, 156", "$117,  156.$", r"117,\ 156"],
    ["117156", "117,156", r"117,\! 156", r"117, \! 156"],
    ["(117,156)", "(117, 156)"],
    ["1,2", "1, 2", r"1,\,2"],
    ["34"],
    ["1/0"],
    [r"2\frac{5}{3}"],
    ["9^{9^9}", "9^{9^{9}}"],
    ["Yes", r"\text{Yes}", r"\text{Yes}."],
    [r"\leftarrow"],
]


@pytest.mark.parametrize("members", CLASSES, ids=lambda members: members[0])
def test_spellings_of_one_answer_share_a_key(members: list[str]) -> None:
    assert {member: key(member) for member in members} == dict.fromkeys(members, members[0])


def test_different_answers_have_different_keys() -> None:
    for one, other in itertools.combinations(CLASSES, 2):
        assert key(one[0]) != key(other[0])


def test_exact_compares_raw_text() -> None:
    assert answer_key(r"\dfrac12 ", equivalence="exact") == r"\dfrac12 "


@pytest.mark.parametrize("nothing", ["", r"\,", r"\text{}", "$$", "~"])
def test_nothing_is_not_made_of_something(nothing: str) -> None:
    assert key(nothing) == nothing


LATEX = (r"\frac", r"\dfrac", r"\sqrt", r"\text{", r"\left(", r"\right)", r"\,", r"\!", r"\circ", r"\$", r"\\", r"\%")
FRAGMENTS = [*LATEX, *"^_{}$(),./-+% 01x°−", "23", "000", r"\(", r"\)"]
fragments = st.lists(st.sampled_from(FRAGMENTS), max_size=20).map("".join)


@given(fragments | st.text())
def test_the_key_of_a_key_is_itself(answer: str) -> None:
    assert key(key(answer)) == key(answer)


@given(fragments)
def test_surrounding_space_does_not_matter(answer: str) -> None:
    assert key(f" {answer}\n") == key(answer)


@given(st.integers(-(10**12), 10**12), st.integers(1, 10**6))
def test_fractions_are_reduced_exactly(over: int, under: int) -> None:
    assert key(rf"\frac{{{over}}}{{{under}}}") == key(f"{over}/{under}") == key(f"{3 * over}/{3 * under}")


@given(st.integers(0, 10**12))
def test_thousands_separators_do_not_matter(number: int) -> None:
    assert key(f"{number:,}") == str(number)


@pytest.mark.parametrize("unit", [r"\frac{", r"\text{", "9^{", " ", r"\circ", "1,", "$", r"\text{a}", "1 ", "\udcff"])
def test_hostile_text_is_cheap_and_still_has_a_fixed_key(unit: str) -> None:
    start = time.perf_counter()
    for length in (MAX_CHARS - 1, 100_000):
        text = (unit * length)[:length]
        assert key(key(text)) == key(text)
    assert time.perf_counter() - start < 1


def test_a_number_past_the_interpreters_limit_stands_for_itself() -> None:
    assert key("9" * 5000) == "9" * 5000
    assert key("0." + "9" * 900) == "0." + "9" * 900
