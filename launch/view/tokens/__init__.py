"""Tokens one by one: their texts, and what the learner made of them."""
