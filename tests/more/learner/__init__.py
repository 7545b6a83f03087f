"""Tests of the learner that need minutes."""
