"""Text in, numbers out: extraction, votes, reward rules, diagnostics. Imports no torch and no ray."""

from rewards.canonical import CanonicalAnswer, canonical_key, same_answer
from rewards.extract import extract_answer
from rewards.grading import grade
from rewards.voting import majority_vote

__all__ = ["CanonicalAnswer", "canonical_key", "extract_answer", "grade", "majority_vote", "same_answer"]
