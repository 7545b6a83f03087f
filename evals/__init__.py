"""Held-out evaluation: the only place besides ground_truth and the diagnostics that sees answers."""
