"""Whether an answer is right, given the right one: wider than the equivalence of votes, since nothing has to be transitive here."""

from __future__ import annotations

from rewards.canonical import CanonicalAnswer, canonical_key


def grade(answer: str | None, gold: str) -> bool:
    """Equal keys; and where the right answer is a percentage, its number without the sign. No answer is wrong."""
    if answer is None:
        return False
    given, right = canonical_key(answer), canonical_key(gold)
    return given == right or (right.kind == "percent" and CanonicalAnswer(given.key + "%", "percent") == right)
