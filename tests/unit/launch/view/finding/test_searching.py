"""A search in joined texts finds what a search in each text by itself finds."""

from __future__ import annotations

import random
import re

import pytest

from corewarding.launch.view.finding.searching import FilterError, Search

EXPRESSIONS = (
    "a", "ab", "b+a", "[^a]+", "[^b]*c", "a.c", "(?s)a.*c", r"\s", r"\n", r"a\b", r"\Ba", r"\bb", "^a", "c$", r"\Aab", "(?m)^b",
    r"c\z", "", "a|^", "(ab)*", "x*", "[$]", r"\$",
)  # fmt: skip


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_joined_texts_are_searched_as_each_by_itself(expression: str) -> None:
    draw = random.Random(expression)
    texts = ["".join(draw.choices("abcA \n$", k=draw.randrange(0, 9))).encode() for _ in range(3000)]
    search = Search(expression, is_regex=True)
    alone = re.compile(expression.replace(r"\z", r"\Z").encode(), re.IGNORECASE)
    ends = expression == r"c$"  # Python's $ also fits before a last newline
    expected = [
        place
        for place, text in enumerate(texts)
        if (text.lower().endswith(b"c") if ends else alone.search(text) is not None)
    ]
    assert list(search.places(texts)) == expected


def test_a_plain_search_means_its_letters() -> None:
    texts = [b"1.5 (a+b)", b"1x5 aab", "ÄÖ".encode(), b""]
    assert list(Search("1.5 (A+", is_regex=False).places(texts)) == [0]
    assert list(Search("äö", is_regex=False).places(texts)) == [2]


@pytest.mark.parametrize("expression", ["(", "a" * 301, r"(a)\1"])
def test_what_is_no_search_is_named(expression: str) -> None:
    with pytest.raises(FilterError, match=r"the search has 301 letters|is no regular expression"):
        Search(expression, is_regex=True)
