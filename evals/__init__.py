"""Held-out evaluation. Besides it, only the rule ground_truth and the diagnostics read answers."""
