"""The search over joined texts finds what a search in each text finds."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewarding.launch.view.search import texts as module
from corewarding.launch.view.search.texts import Search, Texts

WORDS = st.text("ab \n.", max_size=6)
EXPRESSIONS = [
    "a", "b a", "a.*b", "a\\s+b", "[^a]b", "(?s)a.*b", "^a", "b$", "a|$", "\\bab\\b", "", "\n", "[^b]*", "(a|ab)(b|bb)?", "\\Aa.b\\z",
]  # fmt: skip


def held(texts: list[str], *, of_each: int = 1) -> sqlite3.Connection:
    """of_each: texts of each asking."""
    db = sqlite3.connect(":memory:")
    db.row_factory = sqlite3.Row
    db.execute("CREATE TABLE completions(n INT, text TEXT)")
    add(db, texts, of_each=of_each)
    return db


def add(db: sqlite3.Connection, texts: list[str], *, of_each: int = 1) -> None:
    (num,) = db.execute("SELECT count(*) FROM completions").fetchone()
    db.executemany(
        "INSERT INTO completions VALUES (?, ?)", [(100 + num + k // of_each, text) for k, text in enumerate(texts)]
    )


@given(st.lists(WORDS, max_size=8), st.sampled_from(EXPRESSIONS))
def test_a_text_is_found_as_if_it_were_alone(texts: list[str], expression: str) -> None:
    search = Search(expression, is_regex=True)
    expected = {k + 1: 100 + k for k, text in enumerate(texts) if search.pattern.search(text) is not None}
    assert Texts().found(held(texts), search) == expected
    once = Texts().found(held(texts, of_each=3), search, once=True)
    assert set(once.values()) == {100 + (row - 1) // 3 for row in expected}
    assert once.keys() <= expected.keys()


@given(st.lists(WORDS, max_size=8), WORDS)
def test_a_search_that_is_no_expression_means_its_letters(texts: list[str], words: str) -> None:
    expected = {k + 1 for k, text in enumerate(texts) if words in text}
    assert set(Texts().found(held(texts), Search(words, is_regex=False))) == expected


@pytest.mark.parametrize("kept_bytes", [0, 100, 2**20])
def test_what_is_kept_and_what_is_read_again_give_the_same(kept_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 40)
    texts, search = Texts(kept_bytes), Search("x7", is_regex=False)
    db = held([f"text x{k}" for k in range(50)])
    first = texts.found(db, search)
    assert first == {8: 107}
    assert texts.found(db, search) == first
    assert min(kept_bytes, 1) <= texts.num_kept <= kept_bytes
    add(db, ["X7 came later"])
    assert texts.found(db, search) == {8: 107, 51: 150}
