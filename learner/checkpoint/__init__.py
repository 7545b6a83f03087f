"""Checkpoints of a run: how they are committed, and found again."""
