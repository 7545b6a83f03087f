"""From texts to rewards: extraction, votes, reward rules, diagnostics. Imports no torch and no ray."""

from corewarding.rewards.answers.extract import extract_answer
from corewarding.rewards.answers.grading import grade
from corewarding.rewards.answers.key import CanonicalAnswer, canonical_key, same_answer
from corewarding.rewards.voting import majority_vote

__all__ = ["CanonicalAnswer", "canonical_key", "extract_answer", "grade", "majority_vote", "same_answer"]
