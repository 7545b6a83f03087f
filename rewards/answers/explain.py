"""How an answer was read, for people: its tokens, its tree, its kind and the key that votes."""

from __future__ import annotations

from dataclasses import dataclass

from corewarding.rewards.answers.key import canonical_key, normalized
from corewarding.rewards.answers.operations import OutOfBoundsError
from corewarding.rewards.answers.parser import parse
from corewarding.rewards.answers.structure import Units, tree_key, written
from corewarding.rewards.answers.tokens import NotMathError, Token, scan


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerReading:
    """How one answer was read. Printing it gives a line for each field."""

    answer: str
    tokens: tuple[Token, ...]  # () if it cannot be cut into tokens, or is recognised as a whole
    tree: str | None  # the tree of these tokens; None for text
    kind: str  # of the table in rewards/answers/key.py
    key: str  # equal for equal answers; a number is its value, an expression its values at fixed points
    note: str | None  # why it is no more than text, or was recognised as a whole

    def __str__(self) -> str:
        rows = {
            "answer": self.answer,
            "tokens": "  ".join(f"{token.kind} {token.text}" for token in self.tokens),
            "tree": self.tree,
            "kind": self.kind,
            "key": self.key,
            "note": self.note,
        }
        return "\n".join(f"{name:<7} {value}" for name, value in rows.items() if value)


def explain_answer(answer: str, *, units: Units = "drop") -> AnswerReading:
    """How `answer` is read, as `canonical_key` reads it. Never raises."""
    found = canonical_key(answer, units=units)
    text = normalized(answer)
    tokens: tuple[Token, ...] = ()
    tree = note = None
    if found.kind in ("choice", "time", "date") or found.key.startswith("{choice:"):
        note = "recognised by its form, before any mathematics is read"
    else:
        try:
            tokens = tuple(scan(text))
            read = parse(text)
            tree = written(read)
            tree_key(read, units=units)
        except (NotMathError, OutOfBoundsError, RecursionError) as error:
            note = f"text: {error}"
    return AnswerReading(answer=answer, tokens=tokens, tree=tree, kind=found.kind, key=found.key, note=note)
