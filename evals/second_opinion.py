"""Grades with math-verify, in a process that can be killed: it hangs on `9^{9^{9}}`, and a model's text is untrusted.

Every pair ends with one of OUTCOMES. A worker that is too slow or too large is killed and replaced. Verdicts are cached. Optional:
needs the extra `second-opinion` (math-verify, pebble).
"""

from __future__ import annotations

import logging
import multiprocessing
import re
import resource
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

from corewarding.evals.record import EvalError

Outcome = Literal["answered", "no_answer", "unparsable", "timeout", "oom", "error"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
LONGEST, MOST_DIGITS, DEEPEST, MOST_POWERS = 1000, 100, 30, 6
HUGE = re.compile(
    rf"[0-9]{{{MOST_DIGITS},}}"
    r"|\^\s*\{?\s*[0-9]{5,}"  # a huge power
    r"|\^\s*\{?\s*[0-9]+\s*\^"  # a tower of numbers
    r"|[0-9]{4,}\s*!|!\s*!"
)


@dataclass(frozen=True, slots=True)
class Opinion:
    """The outcome of one pair. right: None unless the outcome is `answered`."""

    outcome: Outcome
    right: bool | None = None


@contextmanager
def second_opinions(*, timeout_s: float = 5.0, memory_mb: int = 1024, workers: int = 1) -> Iterator[SecondOpinion]:
    """The grader; its processes end with the context. EvalError if math-verify or pebble is not installed."""
    try:
        import math_verify  # noqa: F401
        from pebble import ProcessPool
    except ImportError as error:
        raise EvalError(f'a second opinion needs {error.name}: pip install "corewarding[second-opinion]"') from error
    context = multiprocessing.get_context("spawn")
    with ProcessPool(max_workers=workers, context=context, initializer=_limit, initargs=(memory_mb * 2**20,)) as pool:
        pool.schedule(_verify, args=("1", "1")).result()  # imports sympy now, so that no pair waits for it
        try:
            yield SecondOpinion(pool, timeout_s=timeout_s)
        finally:
            pool.stop()
            pool.join()


class SecondOpinion:
    """Grades (answer, right answer) pairs in the pool's processes."""

    def __init__(self, pool: Any, *, timeout_s: float) -> None:
        self._pool, self._timeout_s = pool, timeout_s
        self._known: dict[tuple[str, str], Opinion] = {}

    def grade(self, pairs: Sequence[tuple[str | None, str]]) -> list[Opinion]:
        """One opinion per pair, in order."""
        asked = sorted({(a, gold) for a, gold in pairs if a is not None and not self._refused(a)} - self._known.keys())
        if asked:
            answers, golds = zip(*asked, strict=True)
            results = self._pool.map(_verify, answers, golds, timeout=self._timeout_s, chunksize=1).result()
            for pair in asked:
                self._known[pair] = _next(results)
        return [self._opinion(answer, gold) for answer, gold in pairs]

    def _opinion(self, answer: str | None, gold: str) -> Opinion:
        if answer is None:
            return Opinion("no_answer")
        return Opinion("unparsable") if self._refused(answer) else self._known[answer, gold]

    @staticmethod
    def _refused(answer: str) -> bool:
        """Whether the answer is too long, deep or large to be tried."""
        depth = deepest = 0
        for letter in answer:
            depth += (letter in "{([") - (letter in "})]")
            deepest = max(deepest, depth)
        return (
            len(answer) > LONGEST or deepest > DEEPEST or answer.count("^") > MOST_POWERS or bool(HUGE.search(answer))
        )


def _next(results: Iterator[Opinion]) -> Opinion:
    from pebble import ProcessExpired

    try:
        return next(results)
    except (TimeoutError, FutureTimeoutError):
        return Opinion("timeout")
    except MemoryError:
        return Opinion("oom")
    except ProcessExpired as error:
        return Opinion("oom" if error.exitcode == -9 else "error")
    except Exception:  # sympy raises errors of any kind on a model's text
        return Opinion("error")


def _limit(memory_bytes: int) -> None:
    """Limits a worker's address space, and its recursion to what its stack holds."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    logging.disable(logging.WARNING)  # math-verify warns that its own limits are off
    sys.setrecursionlimit(2000)


def _verify(answer: str, gold: str) -> Opinion:
    from math_verify import parse, verify

    # Its own limits use SIGALRM, which needs the main thread; this process is killed from outside instead.
    given, right = (parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (answer, gold))
    if not given or not right:
        return Opinion("unparsable")
    return Opinion("answered", bool(verify(right, given, timeout_seconds=None, raise_on_error=True)))
