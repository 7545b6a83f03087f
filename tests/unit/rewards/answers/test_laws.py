# ruff: noqa: E501
"""Laws of keys on generated answers, and texts that were written to hang or crash a grader."""

from __future__ import annotations

import string
import time
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewarding.rewards.answers import tokens
from corewarding.rewards.answers.explain import explain_answer
from corewarding.rewards.answers.key import canonical_key, same_answer

atoms = st.integers(-50, 50).map(str) | st.sampled_from(
    ["x", "y", r"\pi", r"\sqrt{2}", r"\frac{1}{3}", "0.25", "i", "n"]
)


def joined(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(children, children).map(lambda p: f"({p[0]})+({p[1]})"),
        st.tuples(children, children).map(lambda p: f"({p[0]})({p[1]})"),
        st.tuples(children, children).map(lambda p: rf"\frac{{{p[0]}}}{{{p[1]}}}"),
        st.tuples(children, st.integers(0, 4)).map(lambda p: f"({p[0]})^{{{p[1]}}}"),
        children.map(lambda c: rf"\sqrt{{{c}}}"),
    )


expressions = st.recursive(atoms, joined, max_leaves=6)


def spaced(text: str) -> str:
    return text.replace("+", " + ").replace("(", r"\left(").replace(")", r"\right)").replace(r"\frac", r"\dfrac")


@given(expressions)
def test_another_spelling_is_the_same(text: str) -> None:
    assert same_answer(text, spaced(text))
    assert same_answer(text, f"${text}$")
    assert same_answer(text, f"{{{text}}}")


@given(expressions, expressions)
def test_sums_and_products_commute(one: str, other: str) -> None:
    for pattern in ("({})+({})", "({})({})"):
        assert (
            same_answer(pattern.format(one, other), pattern.format(other, one))
            or canonical_key(pattern.format(one, other)).kind == "unevaluated"
        )


@given(st.lists(expressions, min_size=1, max_size=4), st.randoms())
def test_the_order_of_a_set_does_not_matter_and_that_of_a_tuple_does(items: list[str], random: Random) -> None:
    shuffled = list(items)
    random.shuffle(shuffled)
    braces = r"\{" + ", ".join(items) + r"\}", r"\{" + ", ".join(shuffled) + r"\}"
    assert same_answer(*braces)
    keys = [canonical_key(item) for item in items]
    if len(items) > 1 and [canonical_key(item) for item in shuffled] != keys and len(keys) > 1:
        assert not same_answer("(" + ", ".join(items) + ")", "(" + ", ".join(shuffled) + ")")


@given(expressions | st.text(), expressions | st.text(), expressions | st.text())
def test_it_is_an_equivalence(a: str, b: str, c: str) -> None:
    assert same_answer(a, a)
    assert same_answer(a, b) == same_answer(b, a)
    assert not (same_answer(a, b) and same_answer(b, c)) or same_answer(a, c)


@given(expressions)
def test_a_percentage_is_its_number(text: str) -> None:
    assert same_answer(rf"({text})\%", f"({text})")


FRAGMENTS = [r"\frac", r"\sqrt", r"\text{", r"\left(", r"\right)", r"\,", r"\!", r"\circ", r"\$", r"\\", r"\%", r"\begin{pmatrix}", r"\end{pmatrix}",
             r"\cup", r"\pm", r"\infty", r"\lfloor", r"\rfloor", r"\binom", r"\overline{", r"\boxed{", *"^_{}$(),./-+% 01x°−|:;=<>!&",
             *(rf"\{name} " for name in sorted(tokens.FUNCTIONS)), *sorted(tokens.UNITS), *sorted(tokens.WORDS)]  # fmt: skip
token_soup = st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join)
spliced = st.tuples(expressions, token_soup, expressions).map("".join)


@given(token_soup | spliced | st.text() | st.text(alphabet=string.printable))
def test_any_text_has_a_key_soon(text: str) -> None:
    began = time.process_time()
    assert canonical_key(text).key or not text.strip()
    assert explain_answer(text).key == canonical_key(text).key
    assert time.process_time() - began < 1.0


HOSTILE = [
    "9^{9^{9}}", "9^{9^{9^{9}}}", "10000000!", "((((9!)!)!)!)", "2^{10^{10}}", r"\binom{1000000}{500000}", "(" * 5000 + ")" * 5000,
    "{" * 1000 + "x" + "}" * 1000, "9" * 100_000, "1" * 1_000_000, "x^" * 500 + "x", "-" * 1500 + "1", r"\frac" * 400, r"\sqrt{" * 300 + "2" + "}" * 300,
    "__import__('os').system('id')", "1/0", "0^0", "0^{-1}", r"\log 0", r"\tan 90^\circ", r"\ln(-1)", r"\infty-\infty", r"\frac{\infty}{\infty}",
    "1+" * 900 + "1", "1," * 900 + "1", r"\begin{pmatrix}" + "1 & " * 400, r"\begin{pmatrix}" * 50, "|" * 999, r"\text{" * 200, "\x00\x01", "١٢٣", "𝟏𝟐",
    "x" * 1999, "²" * 500, r"e^{e^{e^{e^{e^{e}}}}}", "10^{-10^{10}}", r"\sinh 100000", r"\exp(\exp(\exp(100)))", "1.0e999999999", "0." + "0" * 1500 + "1",
    r"\sqrt[10^{9}]{2}", r"2^{1/10^{9}}", r"(10^{300})!", r"\lfloor 10^{400} \rfloor", "3^{5000}" * 20, "(x+1)^{100000}", r"\pi^{\pi^{\pi^{\pi}}}",
    " " * 100_000, "\n" * 100_000, " $ " * 10_000,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_decided_at_once(text: str) -> None:
    began = time.process_time()
    canonical_key(text)
    assert time.process_time() - began < 2.0
