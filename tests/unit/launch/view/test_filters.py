"""Filters: each against the same question asked of every row in Python."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from corewarding.launch.view.details import asking
from corewarding.launch.view.run import ViewedRun
from corewarding.launch.view.search.filters import Filter, FilterError, rows_of
from tests.sampled_run import SampledRun

Asking = dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewedRun]:
    folder = tmp_path_factory.mktemp("runs") / "one"
    made = SampledRun(folder)
    made.make(8)
    made.wait(["a" * 200 + "!", "\x1b[31m<script>alert(1)</script>", "x", "\\boxed{1}"])
    with contextlib.closing(ViewedRun(folder, folder / "journal")) as found:
        found.read()
        yield found


def completions(one: Asking) -> list[dict[str, Any]]:
    return [completion for group in one["groups"] for completion in group["completions"]]


def tops(one: Asking, view: str, source: str) -> set[str]:
    return {
        group["vote"]["classes"][0][0]
        for group in one["groups"]
        if (group["view"], group["source"]) == (view, source) and group["vote"]["classes"]
    }


def differ(one: Asking, *kinds: tuple[str, str]) -> bool:
    return len(set().union(*(tops(one, *kind) for kind in kinds))) > 1


CASES: list[tuple[dict[str, str], Callable[[Asking], bool]]] = [
    ({}, lambda one: True),
    (
        {"wrong": "1"},
        lambda one: any(g["label_key"] not in (None, one["gold_key"]) for g in one["groups"] if g["scored"]),
    ),
    ({"abstained": "1"}, lambda one: any(g["abstained"] for g in one["groups"])),
    ({"truncated": "1"}, lambda one: any(c["truncated"] for c in completions(one))),
    ({"swapped": "1"}, lambda one: any(c["first"] != c["last"] for c in completions(one))),
    ({"update_from": "3", "update_to": "4"}, lambda one: one["made"] in (3, 4)),
    ({"fate": "waiting"}, lambda one: one["made"] is None),
    ({"reward_from": "0.5"}, lambda one: any((c["reward"] or 0) >= 0.5 for c in completions(one))),
    (
        {"reward_to": "0", "truncated": "1"},
        lambda one: any(c["truncated"] and c["reward"] == 0 for c in completions(one)),
    ),
    (
        {"differ": "sources"},
        lambda one: any(differ(one, (v, "policy"), (v, "teacher")) for v in ("original", "rephrased")),
    ),
    (
        {"differ": "views"},
        lambda one: any(differ(one, ("original", s), ("rephrased", s)) for s in ("policy", "teacher")),
    ),
    ({"search": "THEN TAKE"}, lambda one: any("then take" in c["text"] for c in completions(one))),
    ({"search": "<script>"}, lambda one: any("<script>" in c["text"] for c in completions(one))),
    (
        {"search": r"\. \\boxed\{\d{2}\}", "regex": "1"},
        lambda one: any(re.search(r"\. \\boxed\{\d{2}\}", c["text"]) for c in completions(one)),
    ),
    (
        {"search": "\\BOXED{", "truncated": "1", "reward_from": "1"},
        lambda one: any("\\boxed{" in c["text"] and c["truncated"] and c["reward"] == 1 for c in completions(one)),
    ),
]


@pytest.mark.parametrize(("query", "expected"), CASES, ids=[str(query) for query, _ in CASES])
def test_a_filter_lets_through_what_it_says(
    run: ViewedRun, query: dict[str, str], expected: Callable[[Asking], bool]
) -> None:
    found = Filter.of(query).numbers(run.db)
    every = Filter().numbers(run.db)
    assert found == [n for n in every if expected(asking(run, n))]
    assert found


def test_a_search_finds_wordings_and_ids(run: ViewedRun) -> None:
    every = Filter().numbers(run.db)
    one = rows_of(run.db, every[:1])[0]
    assert every[0] in Filter(search=one["wording"]).numbers(run.db)
    assert Filter(search=one["id"].upper()).numbers(run.db) == [every[0]]
    assert Filter(question=one["question"]).numbers(run.db) == [every[0]]


def test_orders(run: ViewedRun) -> None:
    rows = {
        order: rows_of(run.db, Filter.of({"order": order}).numbers(run.db)) for order in ("update", "newest", "reward")
    }
    made = [row["made"] for row in rows["update"]]
    assert made == [*sorted(one for one in made if one is not None), None]
    assert [row["n"] for row in rows["newest"]] == sorted((row["n"] for row in rows["update"]), reverse=True)
    means = [row["mean"] for row in rows["reward"] if row["mean"] is not None]
    assert means == sorted(means)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"nope": "1"}, "there is no filter 'nope'"),
        ({"update_from": "x"}, "update_from='x' is no value"),
        ({"fate": "lost"}, "fate='lost' is no value"),
        ({"wrong": "yes"}, "wrong='yes' is no value"),
        ({"search": "(", "regex": "1"}, "is no regular expression"),
        ({"search": "x" * 301}, "give at most 300"),
    ],
)
def test_what_means_nothing_is_refused_by_name(run: ViewedRun, query: dict[str, str], words: str) -> None:
    with pytest.raises(FilterError, match=re.escape(words)):
        Filter.of(query).numbers(run.db)


def test_a_search_takes_time_linear_in_the_text(run: ViewedRun) -> None:
    began = time.process_time()
    assert Filter(search="^(a|aa)+$", regex=True, fate="waiting").numbers(run.db) == []
    assert time.process_time() - began < 1.0


def test_signs_of_like_are_letters(run: ViewedRun) -> None:
    assert Filter(search="a%e").numbers(run.db) == []
    assert Filter(search="a_d").numbers(run.db) == []
