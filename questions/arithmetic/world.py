"""The built-in arithmetic world: any number of word problems in two wordings, generated from a seed.

It replaces a data set: it makes `Question`s and, separately, their answers. Invariant: the three splits share no operands.
The hash of a problem's sorted operands decides its split, whatever the operation, so no held-out question has the numbers
of a training question or a demonstration.

Levels: 1 is one step with numbers up to 20 (products of 2..9 with 2..5), 2 is one step with numbers up to 99 (products
of 3..12 with 3..9), 3 is two steps. Every answer lies in 1..120, every intermediate result too.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from corewarding.dataflow.carriers import Question
from corewarding.dataflow.ids import VIEWS, View
from corewarding.questions.arithmetic.solver import solve
from corewarding.questions.arithmetic.wordings import NAMES, THINGS, WORDINGS, Operation

Split = Literal["train", "heldout", "demonstrations"]


SPLIT_SHARES: dict[Split, float] = {"demonstrations": 0.5, "train": 0.3, "heldout": 0.2}
LEVEL_OPERATIONS: dict[int, tuple[Operation, ...]] = {
    1: ("add", "subtract", "multiply"),
    2: ("add", "subtract", "multiply"),
    3: ("add_subtract", "subtract_add", "multiply_add", "multiply_subtract"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem before it becomes a `Question`: its calculation, and its wording in each view."""

    operation: Operation
    operands: tuple[int, ...]
    level: int
    template: int  # index of the pair in WORDINGS[operation]
    original: str
    rephrased: str

    def wording(self, view: View) -> str:
        return self.original if view == "original" else self.rephrased


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """One question and one worked completion for supervised training; right unless mistakes were requested."""

    question: str
    completion: str


def split_of(operands: tuple[int, ...]) -> Split:
    """The split of these operands, in any order and for any operation."""
    digest = hashlib.sha256(",".join(map(str, sorted(operands))).encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    for split, share in SPLIT_SHARES.items():
        if position < share:
            return split
        position -= share
    return "heldout"


def draw_problem(rng: random.Random, *, split: Split, levels: Sequence[int]) -> Problem:
    """One problem of `split`, its level uniform over `levels`, its operation uniform within the level."""
    level = rng.choice(levels)
    operation = rng.choice(LEVEL_OPERATIONS[level])
    operands = _draw_operands(rng, operation, level)
    while split_of(operands) != split:
        operands = _draw_operands(rng, operation, level)
    template = rng.randrange(len(WORDINGS[operation]))
    numbers = dict(zip("abc", map(str, operands), strict=False))
    slots = {"name": rng.choice(NAMES), "thing": rng.choice(THINGS)} | numbers
    original, rephrased = (text.format(**slots) for text in WORDINGS[operation][template])
    return Problem(
        operation=operation, operands=operands, level=level, template=template, original=original, rephrased=rephrased
    )


def draw_problems(*, split: Split, num: int, seed: int, levels: Sequence[int] = (1, 2, 3)) -> Iterator[Problem]:
    """`num` problems. Problem i depends on (split, seed, levels, i) alone, so a longer list begins with the shorter one.
    ValueError for a level that does not exist."""
    unknown = sorted(set(levels) - set(LEVEL_OPERATIONS))
    if unknown or not levels:
        raise ValueError(
            f"arithmetic levels must be a non-empty choice of {sorted(LEVEL_OPERATIONS)}, got {list(levels)}: "
            "there is no problem to draw for any other level"
        )
    for index in range(num):
        yield draw_problem(random.Random(f"arithmetic/{split}/{seed}/{index}"), split=split, levels=levels)


def arithmetic_questions(
    *, split: Split, num: int, seed: int, levels: Sequence[int] = (1, 2, 3)
) -> tuple[list[Question], dict[str, str]]:
    """`num` questions with ids "arith-<split>-<seed>-<index>", and the answers by id as decimal integers.

    The same arguments give the same questions. Operands may repeat, ids do not. ValueError for an unknown level.
    """
    questions: list[Question] = []
    answers: dict[str, str] = {}
    for index, problem in enumerate(draw_problems(split=split, num=num, seed=seed, levels=levels)):
        question = Question(
            id=f"arith-{split}-{seed}-{index:06d}", original=problem.original, rephrased=problem.rephrased
        )
        questions.append(question)
        answers[question.id] = str(solve(problem.operation, problem.operands)[-1].result)
    return questions, answers


def demonstrations(
    *, num: int, seed: int, wrong_digit_share: float = 0.0, missing_box_share: float = 0.0
) -> Iterator[Demonstration]:
    """`num` worked completions of the split `demonstrations`, both views equally often, all levels.

    Right ones read "12 + 7 = 19, 19 - 5 = 14. \\boxed{14}". Independently, a share `wrong_digit_share` has one random
    digit of the final result replaced, in calculation and answer alike, and a share `missing_box_share` gives the
    answer outside a box. Both mistakes are random per sample, so a vote over samples still elects the right answer.
    """
    for index, problem in enumerate(draw_problems(split="demonstrations", num=num, seed=seed)):
        rng = random.Random(f"arithmetic/completion/{seed}/{index}")
        steps = solve(problem.operation, problem.operands)
        answer = str(steps[-1].result)
        if rng.random() < wrong_digit_share:
            answer = replace_one_digit(rng, answer)
        results = [*(str(step.result) for step in steps[:-1]), answer]
        work = ", ".join(
            f"{step.left} {step.symbol} {step.right} = {result}" for step, result in zip(steps, results, strict=True)
        )
        missing = rng.random() < missing_box_share
        ending = f"The answer is {answer}." if missing else f"\\boxed{{{answer}}}"
        yield Demonstration(question=problem.wording(rng.choice(VIEWS)), completion=f"{work}. {ending}")


def replace_one_digit(rng: random.Random, number: str) -> str:
    """`number` with one digit replaced by another; a leading digit never becomes 0."""
    place = rng.randrange(len(number))
    choices = [digit for digit in "0123456789" if digit != number[place] and (place > 0 or digit != "0")]
    return number[:place] + rng.choice(choices) + number[place + 1 :]


def _draw_operands(rng: random.Random, operation: Operation, level: int) -> tuple[int, ...]:
    """Operands of one problem of any split; results stay within 1..120."""
    if operation == "multiply":
        return (rng.randint(2, 9), rng.randint(2, 5)) if level == 1 else (rng.randint(3, 12), rng.randint(3, 9))
    if operation == "add":
        return (rng.randint(2, 20), rng.randint(2, 20)) if level == 1 else (rng.randint(11, 60), rng.randint(11, 60))
    if operation == "subtract":
        left = rng.randint(4, 20) if level == 1 else rng.randint(25, 99)
        return left, rng.randint(2, left - 1) if level == 1 else rng.randint(11, left - 2)
    if operation == "add_subtract":
        first, second = rng.randint(5, 40), rng.randint(5, 40)
        return first, second, rng.randint(2, min(30, first + second - 1))
    if operation == "subtract_add":
        first = rng.randint(12, 60)
        return first, rng.randint(2, first - 2), rng.randint(2, 30)
    first, second = rng.randint(3, 9), rng.randint(3, 9)
    if operation == "multiply_add":
        return first, second, rng.randint(2, 30)
    return first, second, rng.randint(2, min(30, first * second - 1))
