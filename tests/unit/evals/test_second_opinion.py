"""math-verify in a process that is really killed."""

import re
import time
from types import SimpleNamespace

import pytest

from corewarding.evals import second_opinion
from corewarding.evals.second_opinion import Opinion, SecondOpinion, second_opinions

pytest.importorskip("math_verify")


@pytest.fixture(scope="module")
def other():
    with second_opinions(timeout_s=1.0) as grader:
        yield grader


def test_every_pair_ends_as_an_outcome(other):
    pairs = [(r"\frac{1}{2}", "0.5"), ("3", "4"), (None, "4"), ("9" * 2000, "4"), ("x" * 1001, "x")]
    assert other.grade(pairs) == [
        Opinion("answered", True),
        Opinion("answered", False),
        Opinion("no_answer"),
        Opinion("unparsable"),
        Opinion("unparsable"),
    ]


def test_a_process_that_is_late_is_killed_and_the_next_pair_is_graded(other, monkeypatch):
    monkeypatch.setattr(second_opinion, "HUGE", re.compile("(?!)"))  # let it through
    began = time.monotonic()
    late, fine = other.grade([("9^{9^{9^{9}}}", "387420489"), ("7", "7")])
    assert late.outcome in ("timeout", "oom", "error")
    assert late.right is None
    assert fine == Opinion("answered", True)
    assert time.monotonic() - began < 20  # a new worker imports sympy again


def test_towers_and_factorials_are_refused_before_they_cost_anything(other):
    began = time.monotonic()
    hostile = ["9^{9^{9}}", "99999!", "3!!", "10^{100000}", "(" * 40 + "1" + ")" * 40]
    assert {opinion.outcome for opinion in other.grade([(text, "1") for text in hostile])} == {"unparsable"}
    assert time.monotonic() - began < 0.5


def test_verdicts_are_remembered():
    asked = []

    class Pool:
        def map(self, function, answers, golds, *, timeout, chunksize):
            asked.extend(zip(answers, golds, strict=True))
            return SimpleNamespace(result=lambda: iter([Opinion("answered", True)] * len(answers)))

    grader = SecondOpinion(Pool(), timeout_s=1.0)
    first = grader.grade([("12", "12")])
    assert grader.grade([("12", "12")] * 3) == first * 3
    assert asked == [("12", "12")]
